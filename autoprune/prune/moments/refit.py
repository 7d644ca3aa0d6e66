"""Fits weights that best repeat a layer's dense output from some of its inputs: ridge regression on second moments.

If moments are those of channels, the removed inputs are regressed on the kept ones, with one mixing matrix P = G_RK
G_KK^-1 shared by all kernel positions, and W' = W_K + W_R P: the same formula as for columns, with each kernel position
of an output treated as a separate output.
"""

from __future__ import annotations

import numpy as np
import torch

from autoprune.prune.moments.design import Design
from autoprune.prune.moments.moments import Moments
from autoprune.prune.moments.ridge import ridged


def refit(weight: torch.Tensor, moments: Moments, kept: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """argmin over V of E|W x - V x_K|^2 + r |V - W_K|^2, and the resulting shift of each bias.

    Args:
        weight: the dense weight.
        moments: the second moments of its inputs.
        kept: the kept indices along its dimension of inputs.

    Returns:
        The weight for these inputs and all outputs, and (outputs,) shifts by name of the bias; float64. A weight with
            inputs first lacks the outputs of groups without inputs; their shift is 0.
    """
    design = moments.design
    flat = design.flat(weight.detach().cpu().double())  # (g, o, k)
    seen = _seen(flat, moments)
    groups = kept_by_group(design, kept, weight.shape[design.input_dim])
    solved = torch.stack([_solved(seen[group], moments, group, inputs) for group, inputs in groups.items()])
    small = solved if moments.form == "columns" else _by_column(solved, design)  # (g', o, kept columns)
    shifts = {}
    for bias, mean in moments.constants.items():
        shift = torch.zeros(flat.shape[:2], dtype=torch.float64)
        for index, (group, inputs) in enumerate(groups.items()):
            columns = columns_of(inputs, design.kernel)
            shift[group] = flat[group] @ mean[group] - small[index] @ mean[group][columns]
        shifts[bias] = shift.flatten()
    return design.shaped(small), shifts


def kept_by_group(design: Design, kept: np.ndarray, inputs: int) -> dict[int, np.ndarray]:
    """Kept inputs as indices within their group, for every group that has any left.

    `inputs` is the dense length of the weight's dimension of inputs. If outputs come first, an index along it applies
    to every group.
    """
    if not design.inputs_first:
        return dict.fromkeys(range(design.groups), kept)
    size = inputs // design.groups
    return {int(group): kept[kept // size == group] % size for group in np.unique(kept // size)}


def columns_of(inputs: np.ndarray, block: int) -> torch.Tensor:
    """Columns that belong to inputs of a group, `block` each."""
    return torch.from_numpy((np.asarray(inputs)[:, None] * block + np.arange(block)).ravel())


def seen_weight(weight: torch.Tensor, moments: Moments) -> torch.Tensor:
    """(g, o, d) float64: the weight in the form of the moments; for those of channels, o includes kernel positions."""
    return _seen(moments.design.flat(weight.detach().cpu().double()), moments)


def _seen(flat: torch.Tensor, moments: Moments) -> torch.Tensor:
    if moments.form == "columns":
        return flat
    groups, _, columns = flat.shape
    kernel = moments.design.kernel
    return flat.reshape(groups, -1, columns // kernel, kernel).transpose(2, 3).reshape(groups, -1, columns // kernel)


def _by_column(seen: torch.Tensor, design: Design) -> torch.Tensor:
    """(g, o, k) weights, the inverse of `_seen`, for moments of channels."""
    groups, _, inputs = seen.shape
    return seen.reshape(groups, -1, design.kernel, inputs).transpose(2, 3).flatten(2)


def _solved(weight: torch.Tensor, moments: Moments, group: int, inputs: np.ndarray) -> torch.Tensor:
    """(o, kept) solution for one group and its kept inputs."""
    columns = columns_of(inputs, moments.block)
    gram = ridged(moments.gram[group])
    factor = torch.linalg.cholesky(gram[columns][:, columns])
    target = weight @ gram[:, columns]  # W H_K + r W_K, with the ridge on the diagonal
    return torch.cholesky_solve(target.T, factor).T
