"""Costs as polynomials in the kept counts: exact, and evaluated for thousands of candidates without the model."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoprune.core.process import ending_forks

UserCost = Callable[[Mapping[str, int]], float]
Monomial = tuple[str, ...]  # unit names, sorted, one entry per power

BLOCK = 16_384  # entries per block when a polynomial is evaluated, so that a block fits into the cache


class Formula(ABC):
    """A cost with an exact formula over the kept counts."""

    @abstractmethod
    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """Returns the (n,) exact integer costs at (n, u) kept counts of the u named units."""


@dataclass(frozen=True)
class Polynomial(Formula):
    """An integer polynomial in the kept counts of units, e.g. 9216 * a * b + 16 * a.

    An operator's MACs are the product of its axes' sizes, and the size of an axis is a sum or product of kept counts;
    hence MACs, parameters and bytes of any candidate are such polynomials.
    """

    terms: Mapping[Monomial, int] = field(default_factory=dict)

    @staticmethod
    def constant(value: int) -> Polynomial:
        """The polynomial that is `value` everywhere."""
        return Polynomial({(): value} if value else {})

    @staticmethod
    def of(unit: str) -> Polynomial:
        """The polynomial that equals one unit's kept count."""
        return Polynomial({(unit,): 1})

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = dict(self.terms)
        for monomial, coefficient in other.terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, int] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial = tuple(sorted(left + right))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    @property
    def units(self) -> frozenset[str]:
        return frozenset(unit for monomial in self.terms for unit in monomial)

    def substitute(self, counts: Mapping[str, int]) -> Polynomial:
        """The polynomial that remains when the named units are fixed at the given kept counts."""
        terms: dict[Monomial, int] = {}
        for monomial, coefficient in self.terms.items():
            for unit in monomial:
                coefficient *= counts.get(unit, 1)
            rest = tuple(unit for unit in monomial if unit not in counts)
            terms[rest] = terms.get(rest, 0) + coefficient
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        own, index, coefficients = self._tables
        column = {unit: position for position, unit in enumerate(units)}
        columns = np.ones((len(own) + 1, len(kept)), dtype=np.int64)  # the row of ones pads the shorter monomials
        columns[:-1] = np.asarray(kept).T[[column[unit] for unit in own]]
        values = np.zeros(len(kept), dtype=np.int64)
        block = max(1, BLOCK // max(len(kept), 1))
        for start in range(0, len(coefficients), block):
            own_coefficients = coefficients[start : start + block]
            powers = np.ones((len(own_coefficients), len(kept)), dtype=np.int64)
            for factor in index[:, start : start + block]:
                powers *= columns[factor]  # (t, n)
            values += own_coefficients @ powers
        return values

    @functools.cached_property
    def _tables(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """The polynomial's units, its terms' factors as (degree, t) positions among them, and (t,) coefficients.

        Terms with fewer factors are padded with the position one past the last unit.
        """
        own = sorted(self.units)
        column = {unit: position for position, unit in enumerate(own)}
        degree = max((len(monomial) for monomial in self.terms), default=0)
        rows = [[column[u] for u in m] + [len(own)] * (degree - len(m)) for m in self.terms]
        index = np.array(rows, dtype=np.int64).reshape(len(rows), degree).T
        return own, np.ascontiguousarray(index), np.array(list(self.terms.values()), dtype=np.int64)

    def to_json(self) -> list[list[Any]]:
        return [[coefficient, *monomial] for monomial, coefficient in sorted(self.terms.items())]

    @staticmethod
    def from_json(data: Sequence[Sequence[Any]]) -> Polynomial:
        return Polynomial({tuple(monomial): int(coefficient) for coefficient, *monomial in data})


@dataclass(frozen=True)
class CostModel:
    """Named costs over named units.

    Attributes:
        widths: the dense count of every unit, by name.
        costs: by name, a Formula or a user's function from kept counts by unit name to a float. `macs` counts one fused
            multiply-add once (flops = 2 * macs).
    """

    widths: Mapping[str, int]
    costs: Mapping[str, Formula | UserCost]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.costs)

    def evaluate(
        self, units: Sequence[str], kept: np.ndarray, names: Iterable[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Returns costs by name, (n,) each, at (n, u) kept counts of the named units; other units stay dense.

        `names` restricts the result to these costs; None returns all of them.
        """
        position, dense = self._widths
        if tuple(units) == tuple(position):
            full = np.asarray(kept)
        else:
            full = np.tile(dense, (len(kept), 1))
            full[:, [position[unit] for unit in units]] = kept
        wanted = self.costs if names is None else names
        return {name: _evaluate(self.costs[name], list(position), full) for name in wanted}

    @functools.cached_property
    def _widths(self) -> tuple[dict[str, int], np.ndarray]:
        """The position of each unit in `widths`, and the (u,) widths."""
        order = {unit: index for index, unit in enumerate(self.widths)}
        return order, np.array(list(self.widths.values()), dtype=np.int64)

    def dense(self) -> dict[str, float]:
        """The costs of the dense network, by name."""
        values = self.evaluate((), np.zeros((1, 0), dtype=np.int64))
        return {name: value[0].item() for name, value in values.items()}

    def with_cost(self, name: str, cost: UserCost) -> CostModel:
        """A copy with one more cost."""
        return CostModel(self.widths, {**self.costs, name: cost})


def _evaluate(cost: Formula | UserCost, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
    if isinstance(cost, Formula):
        return cost.evaluate(units, kept)
    rows = [dict(zip(units, row, strict=True)) for row in kept.tolist()]
    with ending_forks():
        return np.array([float(cost(row)) for row in rows])
