"""Costs as polynomials in the kept counts: exact, and evaluated for thousands of candidates without the model."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

UserCost = Callable[[Mapping[str, int]], float]
Monomial = tuple[str, ...]  # unit names, sorted, one entry per power


class Formula(ABC):
    """A cost that is known exactly for any kept counts."""

    @abstractmethod
    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """(n,) exact integer values at (n, u) kept counts of the u named units."""


@dataclass(frozen=True)
class Polynomial(Formula):
    """An integer polynomial in the kept counts of units, e.g. 9216 * a * b + 16 * a.

    An operator's MACs are the product of its axes' sizes, and the size of an axis is a sum or product of kept
    counts; so MACs, parameters and bytes of any candidate are such polynomials.
    """

    terms: Mapping[Monomial, int] = field(default_factory=dict)

    @staticmethod
    def constant(value: int) -> Polynomial:
        return Polynomial({(): value} if value else {})

    @staticmethod
    def of(unit: str) -> Polynomial:
        """The kept count of one unit."""
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
        """The same polynomial with the named units fixed at the given kept counts."""
        terms: dict[Monomial, int] = {}
        for monomial, coefficient in self.terms.items():
            for unit in monomial:
                coefficient *= counts.get(unit, 1)
            rest = tuple(unit for unit in monomial if unit not in counts)
            terms[rest] = terms.get(rest, 0) + coefficient
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        own, coefficients, index = self._arrays
        kept = np.asarray(kept, dtype=np.int64)
        padded = np.ones((len(kept), len(own) + 1), dtype=np.int64)
        column = {unit: index for index, unit in enumerate(units)}
        padded[:, :-1] = kept[:, [column[unit] for unit in own]]
        values = np.zeros(len(kept), dtype=np.int64)
        for start in range(0, len(index), 256):  # bounds the (n, t, degree) array below
            powers = padded[:, index[start : start + 256]].prod(axis=2)  # (n, t)
            values += powers @ coefficients[start : start + 256]
        return values

    @functools.cached_property
    def _arrays(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Its units, (t,) coefficients and (t, degree) indices of units; one beyond them pads the shorter monomials."""
        own = sorted(self.units)
        column = {unit: index for index, unit in enumerate(own)}
        degree = max((len(monomial) for monomial in self.terms), default=0)
        index = [[column[u] for u in m] + [len(own)] * (degree - len(m)) for m in self.terms]
        coefficients = np.array(list(self.terms.values()), dtype=np.int64)
        return own, coefficients, np.array(index, dtype=np.int64).reshape(len(index), degree)

    def to_json(self) -> list[list[Any]]:
        return [[coefficient, *monomial] for monomial, coefficient in sorted(self.terms.items())]

    @staticmethod
    def from_json(data: Sequence[Sequence[Any]]) -> Polynomial:
        return Polynomial({tuple(monomial): int(coefficient) for coefficient, *monomial in data})


@dataclass(frozen=True)
class CostModel:
    """Named costs over named units.

    A cost is a Formula or a user's function from kept counts by unit name to a float. `widths` are the dense
    counts; `macs` counts one fused multiply-add once (flops = 2 * macs).
    """

    widths: Mapping[str, int]
    costs: Mapping[str, Formula | UserCost]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.costs)

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> dict[str, np.ndarray]:
        """Every cost at (n, u) kept counts of the named units, (n,) each; units not named stay dense."""
        order = list(self.widths)
        column = {unit: index for index, unit in enumerate(order)}
        full = np.empty((len(kept), len(order)), dtype=np.int64)
        full[:] = list(self.widths.values())
        full[:, [column[unit] for unit in units]] = kept
        return {name: _evaluate(cost, order, full) for name, cost in self.costs.items()}

    def dense(self) -> dict[str, float]:
        """Every cost of the dense network."""
        values = self.evaluate((), np.zeros((1, 0), dtype=np.int64))
        return {name: value[0].item() for name, value in values.items()}

    def with_cost(self, name: str, cost: UserCost) -> CostModel:
        """The same model with one more cost."""
        return CostModel(self.widths, {**self.costs, name: cost})


def _evaluate(cost: Formula | UserCost, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
    if isinstance(cost, Formula):
        return cost.evaluate(units, kept)
    rows = [dict(zip(units, row, strict=True)) for row in kept.tolist()]
    return np.array([float(cost(row)) for row in rows])
