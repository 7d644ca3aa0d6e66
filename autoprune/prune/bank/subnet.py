"""The part of a model that a candidate keeps, with everything that follows from its counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import Indices, Recipe, kept_indices, make_recipe


@dataclass(frozen=True, eq=False)
class Subnet:
    """The part of a model that a candidate keeps. `Bank.subnet` makes it from kept counts.

    Attributes:
        counts: kept count of each unit, by name. A unit that is not named stays whole.
        sparse: names of the weights that lose entries.
    """

    counts: Mapping[str, int]
    sparse: tuple[str, ...]
    _orders: Mapping[str, np.ndarray] = field(repr=False)
    _structure: Structure = field(repr=False)
    _tensors: Mapping[str, torch.Tensor] = field(repr=False)

    @cached_property
    def positions(self) -> dict[str, np.ndarray]:
        """Sorted kept positions by unit name. Units without an order of positions are left out."""
        return {
            unit: np.sort(self._orders[unit][:count]) for unit, count in self.counts.items() if unit in self._orders
        }

    @cached_property
    def indices(self) -> Indices:
        """Kept indices of every tensor of the model that loses some."""
        return kept_indices(self._structure.units, self.positions, self._tensors)

    @cached_property
    def recipe(self) -> Recipe:
        """Sizes, adapted modules and skipped modules of the network."""
        return make_recipe(self._structure, self.positions)

    @cached_property
    def is_whole(self) -> bool:
        """Whether nothing is removed: neither positions nor entries of weights."""
        widths = ((unit.width, self.counts.get(unit.name, unit.width)) for unit in self._structure.units)
        return not self.sparse and all(width == count for width, count in widths)
