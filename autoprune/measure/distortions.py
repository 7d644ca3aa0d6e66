"""Damage measured layer by layer, without running the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from autoprune.errors import ConfigError
from autoprune.prune.bank import Bank
from autoprune.prune.copying import named_tensors
from autoprune.prune.statistics import consumers_of
from autoprune.prune.surgery import Indices


def check_layers(bank: Bank, units: Sequence[str]) -> None:
    """ConfigError naming the units of which no consumer has statistics, so that no layer error can be told."""
    blind = [u for u in units if not set(consumers_of([bank.structure.unit(u)])) & set(bank.moments)]
    if blind:
        raise ConfigError(
            f"expected every searched unit to have a consumer with statistics for `guide: layer`, {blind} have none "
            "(branches, grouped or very wide consumers). Leave them out of the space, or set search.guide to kl or mse."
        )


def layer_error(bank: Bank, counts: Mapping[str, int]) -> float:
    """The sum over consumers of the relative squared error of their outputs, each on the dense network's inputs.

    With W a consumer's weights, V those it has after compensation (0 at the inputs that are gone) and H the second
    moments of its inputs: tr((W - V) H (W - V)^T) / tr(W H W^T), over the outputs that stay. 0 when dense. It is the
    objective of layer-wise pruning (Dong et al. 2017, https://arxiv.org/abs/1705.07565, equation 1), which we divide by
    the output's energy so that layers of different scale add up. It sees nothing of what an error does downstream.
    """
    indices = bank.indices(bank.positions(counts))
    compensated, tensors = bank.compensated(indices), named_tensors(bank.model)
    return sum(
        _relative_error(bank, name, indices, tensors[name], compensated[name]) for name in _changed(bank, indices)
    )


def _changed(bank: Bank, indices: Indices) -> list[str]:
    return [name for name in bank.moments if 1 in indices.get(name, {})]


def _relative_error(bank: Bank, name: str, indices: Indices, full: torch.Tensor, small: torch.Tensor) -> float:
    dims, gram = indices[name], bank.moments[name].gram
    weight = full.detach().cpu().double().flatten(1)  # (o, k)
    if 0 in dims:
        weight = weight[torch.from_numpy(dims[0])]
    block = weight.shape[1] // full.shape[1]
    columns = torch.from_numpy((dims[1][:, None] * block + np.arange(block)).ravel())
    error = weight.clone()
    error[:, columns] -= small.detach().cpu().double().flatten(1)
    energy = float(((weight @ gram) * weight).sum())
    return float(((error @ gram) * error).sum()) / energy if energy > 0 else 0.0
