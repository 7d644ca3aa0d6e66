"""The masked original: full size, with everything that reads a removed position set to zero."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from autoprune.prune.structure import Structure
from autoprune.prune.surgery import Positions, kept_indices, named_tensors, rebuild


def masked(
    model: nn.Module, structure: Structure, positions: Positions, weights: Mapping[str, torch.Tensor] | None = None
) -> nn.Module:
    """A copy of the model that ignores removed positions: their columns in every consumer's weight are zero.

    `weights` are small weights (or biases) that differ from slices of the model's own, by name, as compensation makes
    them: they are written back to the places their indices came from, so that the copy computes what the small
    network must compute.
    """
    tensors = named_tensors(model)
    indices = kept_indices(structure.units, positions, tensors)
    changed = {name: _scatter(tensors[name], small, indices.get(name, {})) for name, small in (weights or {}).items()}
    for unit in structure.units:
        removed = np.setdiff1d(np.arange(unit.width), positions.get(unit.name, np.arange(unit.width)))
        for slot in unit.with_role("in"):
            if len(removed):
                full = changed.setdefault(slot.tensor, tensors[slot.tensor].detach().clone())
                columns = torch.from_numpy(slot.span.indices(removed).ravel()).to(full.device)
                full.index_fill_(slot.dim, columns, 0.0)
    return rebuild(model, changed, {})


def _scatter(full: torch.Tensor, small: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    """The full tensor with the small one's values at the indices it keeps."""
    grid = [dims.get(dim, np.arange(length)) for dim, length in enumerate(full.shape)]
    result = full.detach().clone()
    result[tuple(torch.from_numpy(axis).to(full.device) for axis in np.ix_(*grid))] = small.to(full.dtype)
    return result
