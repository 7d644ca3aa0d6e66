"""Costs of networks with zeros among their weights, exact for any widths.

A weight unit decides how many entries of one weight stay; a pattern unit how many of every few consecutive inputs. In a
network whose channels are removed as well, the number of entries involves a division that is rounded, which is no
polynomial. Such costs are therefore a polynomial for the rest of the network plus one exact count for each weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.cost import CostModel, Formula, Polynomial

SPARSE_COSTS = ("nonzeros", "effective_macs")  # available if the space has weight units
MINUS = Polynomial.constant(-1)


@dataclass(frozen=True)
class SparseWeight:
    """One weight that can be sparse.

    Attributes:
        unit: the name of the unit that decides it.
        width: the number of entries of the dense weight.
        numel: the number of entries, a polynomial in the kept counts of the units that remove positions.
        inputs: the size of the input dimension, such a polynomial as well.
        uses: how often each entry is multiplied in a forward pass.
        group: 0 for single entries, where the unit's count is out of `width`; else the count is out of every `group`
            consecutive inputs.
    """

    unit: str
    width: int
    numel: Polynomial
    inputs: Polynomial
    uses: int
    group: int = 0

    @property
    def units(self) -> frozenset[str]:
        """All units that the number of kept entries depends on; rounding couples them."""
        return frozenset({self.unit}) | self.numel.units | self.inputs.units

    @property
    def whole(self) -> int:
        """The unit's count in the dense network."""
        return self.group or self.width

    def kept(self, count: np.ndarray | int, numel: np.ndarray | int, inputs: np.ndarray | int) -> np.ndarray:
        """The number of kept entries of a weight with `numel` entries and `inputs` along its input dimension.

        Single entries: the unit's share of them, rounded up. Patterns: at each place of the other dimensions, `count`
        of every whole group and up to `count` of the last, shorter one.
        """
        count, numel, inputs = np.asarray(count), np.asarray(numel), np.asarray(inputs)
        if not self.group:
            return np.asarray(-(-count * numel // self.width))
        places = numel // np.maximum(inputs, 1)
        return np.asarray(places * (inputs // self.group * count + np.minimum(inputs % self.group, count)))

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """The (n,) numbers of kept entries at (n, u) kept counts of the named units."""
        count = np.asarray(kept, dtype=np.int64)[:, units.index(self.unit)]
        return self.kept(count, self.numel.evaluate(units, kept), self.inputs.evaluate(units, kept))


@dataclass(frozen=True)
class SparseCost(Formula):
    """A polynomial for the part that weight units do not affect, plus each weight's kept entries times a factor."""

    rest: Polynomial
    weights: tuple[tuple[SparseWeight, int], ...]

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        total = self.rest.evaluate(units, kept)
        for weight, factor in self.weights:
            total = total + factor * weight.evaluate(units, kept)
        return total


def with_sparse_costs(costs: CostModel, weights: Mapping[str, SparseWeight]) -> CostModel:
    """Adds the weight units' widths and the costs `nonzeros` and `effective_macs`; without weights, no change.

    `nonzeros` counts the parameters that are not masked, biases and batch norms included; `effective_macs` the
    multiply-accumulates with weights that are not masked. `macs` and `params` remain those of dense storage.
    """
    macs, params = costs.costs["macs"], costs.costs["params"]
    if not weights or not isinstance(macs, Polynomial) or not isinstance(params, Polynomial):
        return costs
    for weight in weights.values():
        params = params + MINUS * weight.numel
        macs = macs + MINUS * weight.numel * Polynomial.constant(weight.uses)
    nonzeros = SparseCost(params, tuple((weight, 1) for weight in weights.values()))
    effective = SparseCost(macs, tuple((weight, weight.uses) for weight in weights.values()))
    widths = {**costs.widths, **{name: weight.whole for name, weight in weights.items()}}
    return CostModel(widths, {**costs.costs, **dict(zip(SPARSE_COSTS, (nonzeros, effective), strict=True))})
