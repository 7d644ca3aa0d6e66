"""Fits the weights that best reproduce a layer's dense output from its kept inputs, by ridge regression on moments.

If moments are those of channels, the removed inputs are regressed on the kept ones, with one mixing matrix P = G_RK
G_KK^-1 that all kernel positions share, and W' = W_K + W_R P. This is the same formula as for columns, with each kernel
position of an output treated as a separate output.
"""

from __future__ import annotations

import numpy as np
import torch

from autoprune.prune.devices.precision import doubled
from autoprune.prune.moments.design import Design
from autoprune.prune.moments.moments import Moments
from autoprune.prune.moments.ridge import ridged


def refit(weight: torch.Tensor, moments: Moments, kept: np.ndarray) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Solves argmin over V of E|W x - V x_K|^2 + r |V - W_K|^2, and computes the resulting shift of each bias.

    Args:
        weight: the dense weight.
        moments: the second moments of its inputs.
        kept: the kept indices along its dimension of inputs.

    Returns:
        The float64 weight for the kept inputs and all outputs, and (outputs,) shifts by name of the bias, on the
            weight's device if that has float64, else on the CPU. A weight with inputs first lacks the outputs of
            groups without inputs; their shift is 0.
    """
    design = moments.design
    flat = design.flat(doubled(weight.detach()))  # (g, o, k)
    seen = _seen(flat, moments)
    groups = kept_by_group(design, kept, weight.shape[design.input_dim])
    solved = torch.stack([_solved(seen[group], moments, group, inputs) for group, inputs in groups.items()])
    small = solved if moments.form == "columns" else _by_column(solved, design)  # (g', o, kept columns)
    shifts = {}
    for bias, mean in moments.constants.items():
        mean = mean.to(flat.device)
        shift = flat.new_zeros(flat.shape[:2])
        for index, (group, inputs) in enumerate(groups.items()):
            columns = columns_of(inputs, design.kernel)
            shift[group] = flat[group] @ mean[group] - small[index] @ mean[group][columns]
        shifts[bias] = shift.flatten()
    return design.shaped(small), shifts


def kept_by_group(design: Design, kept: np.ndarray, inputs: int) -> dict[int, np.ndarray]:
    """Kept inputs as indices within their group, by group; groups without kept inputs are left out.

    Args:
        design: the design of the weight.
        kept: the kept indices along the weight's dimension of inputs. If the weight's outputs come first, they apply to
            every group.
        inputs: the dense length of that dimension.
    """
    if not design.inputs_first:
        return dict.fromkeys(range(design.groups), kept)
    size = inputs // design.groups
    return {int(group): kept[kept // size == group] % size for group in np.unique(kept // size)}


def columns_of(inputs: np.ndarray, block: int) -> torch.Tensor:
    """The columns that belong to inputs of a group, of which each has `block`."""
    return torch.from_numpy((np.asarray(inputs)[:, None] * block + np.arange(block)).ravel())


def seen_weight(weight: torch.Tensor, moments: Moments) -> torch.Tensor:
    """(g, o, d) float64 weight in the form of the moments; for moments of channels, o includes kernel positions."""
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
    """The (o, kept) solution for one group and its kept inputs."""
    columns = columns_of(inputs, moments.block)
    gram = ridged(moments.gram[group].to(weight.device).double(), moments.ridge)
    factor = torch.linalg.cholesky(gram[columns][:, columns])
    target = weight @ gram[:, columns]  # W H_K + r W_K, with the ridge on the diagonal
    return torch.cholesky_solve(target.T, factor).T
