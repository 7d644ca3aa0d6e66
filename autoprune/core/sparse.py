"""Costs of networks in which single weights are zero: exact, whatever else is removed.

A weight unit decides how many entries of one weight stay, a pattern unit how many of every few inputs in a row. How
many entries that makes in a network whose channels go too is a product and a division that is rounded: no polynomial,
so such costs are a polynomial for the rest of the network and one exact count for every weight.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.cost import CostModel, Formula, Polynomial

SPARSE_COSTS = ("nonzeros", "effective_macs")  # there whenever a space has weight units
MINUS = Polynomial.constant(-1)


@dataclass(frozen=True)
class SparseWeight:
    """One weight that can be sparse, and how many of its entries stay.

    `unit` names the unit. `numel` is how many entries the weight has, `inputs` how many of them lie along its input
    dimension, both polynomials in the kept counts of the units that remove positions; `uses` is how often each entry
    is multiplied in a forward pass. `group` is 0 for single entries, where the unit's count is out of the `width`
    entries of the dense weight; else the unit's count is out of every `group` inputs in a row.
    """

    unit: str
    width: int
    numel: Polynomial
    inputs: Polynomial
    uses: int
    group: int = 0

    @property
    def units(self) -> frozenset[str]:
        """All units that its kept entries depend on; rounding ties them together."""
        return frozenset({self.unit}) | self.numel.units | self.inputs.units

    @property
    def whole(self) -> int:
        """The unit's count when nothing goes."""
        return self.group or self.width

    def kept(self, count: np.ndarray | int, numel: np.ndarray | int, inputs: np.ndarray | int) -> np.ndarray:
        """Entries that stay, of a weight of `numel` entries with `inputs` along its input dimension.

        Single entries: the unit's share of them, rounded up. Patterns: `count` of every whole group, and of the last,
        shorter group all up to `count`, at each place of the other dimensions.
        """
        count, numel, inputs = np.asarray(count), np.asarray(numel), np.asarray(inputs)
        if not self.group:
            return np.asarray(-(-count * numel // self.width))
        places = numel // np.maximum(inputs, 1)
        return np.asarray(places * (inputs // self.group * count + np.minimum(inputs % self.group, count)))

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """(n,) entries that stay at (n, u) kept counts of the named units."""
        count = np.asarray(kept, dtype=np.int64)[:, units.index(self.unit)]
        return self.kept(count, self.numel.evaluate(units, kept), self.inputs.evaluate(units, kept))


@dataclass(frozen=True)
class SparseCost(Formula):
    """A polynomial for all that weight units leave alone, and the entries that stay of each weight times a factor."""

    rest: Polynomial
    weights: tuple[tuple[SparseWeight, int], ...]

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        total = self.rest.evaluate(units, kept)
        for weight, factor in self.weights:
            total = total + factor * weight.evaluate(units, kept)
        return total


def with_sparse_costs(costs: CostModel, weights: Mapping[str, SparseWeight]) -> CostModel:
    """The costs with weight units among the widths, and `nonzeros` and `effective_macs` beside `macs` and `params`.

    `nonzeros` counts the parameters that are not masked, biases and batch norms included; `effective_macs` the
    multiply-accumulates with weights that are not masked. `macs` and `params` stay those of dense storage. Without
    weights the costs are the same.
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
