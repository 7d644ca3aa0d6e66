"""Costs as polynomials in the kept counts: exact, and evaluated for thousands of candidates without the model.

A user's cost is a function of kept counts, such a function for many candidates at once (`vectorised`), or a factory
that makes one, or a Formula, from the network (`cost_factory`).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeGuard, TypeVar, runtime_checkable

import numpy as np

from autoprune.core.process import ending_forks

UserCost = Callable[[Mapping[str, int]], float]
CostFactory = Callable[..., Any]  # (structure, model, example) -> UserCost or Formula
AnyCost = TypeVar("AnyCost", bound=Callable[..., Any])
Monomial = tuple[str, ...]  # unit names, sorted, one entry per power

FACTORY_ARGUMENTS = ("structure", "model", "example")
EVALUATION_BLOCK = 16_384  # entries per block when a polynomial is evaluated, so that a block fits into the cache


@runtime_checkable
class Marked(Protocol):
    """A user's cost that says what it is; `cost_factory` and `vectorised` make one of a function or class."""

    cost_form: Literal["factory", "vectorised"]


def cost_factory(factory: AnyCost) -> AnyCost:
    """Marks a function or class as one that makes a cost from the network.

    It is called once, before the search, with `(structure, model, example)`: the Structure of the network, a copy of
    the network in eval mode, and the tuple of input tensors of one call, so that `model(*example)` runs. It returns a
    function of kept counts, also a `vectorised` one, or a Formula such as a Polynomial, on which plans are exact.

    >>> @autoprune.cost_factory
    ... def joules(structure, model, example, per_mac=1e-12):
    ...     return per_mac * structure.cost.costs["macs"]
    """
    factory.cost_form = "factory"  # type: ignore[attr-defined]  # read back by is_factory
    return factory


def vectorised(cost: AnyCost) -> AnyCost:
    """Marks a function of kept counts that takes many candidates at once.

    It gets an (n,) array of kept counts for every unit name and returns (n,) values, one for each candidate.

    >>> @autoprune.vectorised
    ... def joules(kept):
    ...     return 1e-9 * sum(count**2 for count in kept.values())
    """
    cost.cost_form = "vectorised"  # type: ignore[attr-defined]  # read back by is_vectorised
    return cost


def is_factory(cost: object) -> TypeGuard[CostFactory]:
    """Whether a user's cost, or what a partial application of it calls, is marked with `cost_factory`."""
    return _form(cost) == "factory"


def is_vectorised(cost: object) -> bool:
    """Whether a user's cost, or what a partial application of it calls, is marked with `vectorised`."""
    return _form(cost) == "vectorised"


def _form(cost: object) -> str:
    while isinstance(cost, functools.partial):
        cost = cost.func
    return cost.cost_form if isinstance(cost, Marked) else ""


class Formula(ABC):
    """A cost with a formula over the kept counts, evaluated for many candidates at once."""

    @abstractmethod
    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """Returns the (n,) costs at (n, u) kept counts of the u named units."""


@dataclass(frozen=True)
class Polynomial(Formula):
    """A polynomial in the kept counts of units, e.g. 9216 * a * b + 16 * a; exact where all coefficients are integers.

    An operator's MACs are the product of its axes' sizes, and the size of an axis is a sum or product of kept
    counts; so MACs, parameters and bytes of any candidate are such polynomials. Numbers are constant polynomials in
    sums and products.

    >>> 0.5 * Polynomial.of("a") * Polynomial.of("b") + 16
    """

    terms: Mapping[Monomial, float] = field(default_factory=dict)

    @staticmethod
    def constant(value: float) -> Polynomial:
        """The polynomial that is `value` everywhere."""
        return Polynomial({(): value} if value else {})

    @staticmethod
    def of(unit: str) -> Polynomial:
        """The polynomial that equals one unit's kept count."""
        return Polynomial({(unit,): 1})

    def __add__(self, other: Polynomial | float) -> Polynomial:
        terms = dict(self.terms)
        for monomial, coefficient in _polynomial(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + coefficient
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    def __mul__(self, other: Polynomial | float) -> Polynomial:
        terms: dict[Monomial, float] = {}
        for left, a in self.terms.items():
            for right, b in _polynomial(other).terms.items():
                monomial = tuple(sorted(left + right))
                terms[monomial] = terms.get(monomial, 0) + a * b
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    __radd__ = __add__
    __rmul__ = __mul__

    @property
    def units(self) -> frozenset[str]:
        return frozenset(unit for monomial in self.terms for unit in monomial)

    def substitute(self, counts: Mapping[str, int]) -> Polynomial:
        """The polynomial that remains when the named units are fixed at the given kept counts."""
        terms: dict[Monomial, float] = {}
        for monomial, coefficient in self.terms.items():
            for unit in monomial:
                coefficient *= counts.get(unit, 1)
            rest = tuple(unit for unit in monomial if unit not in counts)
            terms[rest] = terms.get(rest, 0) + coefficient
        return Polynomial({monomial: c for monomial, c in terms.items() if c})

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        """Returns the (n,) values at (n, u) kept counts of the u named units."""
        own, index, coefficients = self._tables
        column = {unit: position for position, unit in enumerate(units)}
        columns = np.ones((len(own) + 1, len(kept)), dtype=np.int64)  # the row of ones pads the shorter monomials
        columns[:-1] = np.asarray(kept).T[[column[unit] for unit in own]]
        values = np.zeros(len(kept), dtype=coefficients.dtype)
        whole = coefficients.dtype == np.int64
        block = max(1, EVALUATION_BLOCK // max(len(kept), 1))
        for start in range(0, len(coefficients), block):
            own_coefficients = coefficients[start : start + block]
            powers = np.ones((len(own_coefficients), len(kept)), dtype=np.int64)
            for factor in index[:, start : start + block]:
                powers *= columns[factor]  # (t, n)
            if whole:
                values += own_coefficients @ powers
            else:  # term after term, so that a value does not depend on how many candidates are looked at together
                values = np.vstack([values, own_coefficients[:, None] * powers]).cumsum(axis=0)[-1]
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
        whole = all(isinstance(coefficient, int | np.integer) for coefficient in self.terms.values())
        kind = np.int64 if whole else np.float64
        return own, np.ascontiguousarray(index), np.array(list(self.terms.values()), dtype=kind)

    def to_json(self) -> list[list[Any]]:
        """The terms as plain data for JSON: a coefficient and the units of its monomial."""
        return [[coefficient, *monomial] for monomial, coefficient in sorted(self.terms.items())]

    @staticmethod
    def from_json(data: Sequence[Sequence[Any]]) -> Polynomial:
        """Makes a polynomial from the result of `to_json`."""
        return Polynomial({tuple(monomial): coefficient for coefficient, *monomial in data})


def _polynomial(value: Polynomial | float) -> Polynomial:
    return value if isinstance(value, Polynomial) else Polynomial.constant(value)


@dataclass(frozen=True)
class CostModel:
    """Named costs over named units.

    A cost is a Formula or a user's function from kept counts by unit name to a float, which may be `vectorised`.
    `widths` are the dense counts; `macs` counts one fused multiply-add once (flops = 2 * macs).
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
        return {name: evaluated(self.costs[name], list(position), full) for name in wanted}

    @functools.cached_property
    def _widths(self) -> tuple[dict[str, int], np.ndarray]:
        """The position of each unit in `widths`, and the (u,) widths."""
        order = {unit: index for index, unit in enumerate(self.widths)}
        return order, np.array(list(self.widths.values()), dtype=np.int64)

    def dense(self) -> dict[str, float]:
        """The costs of the dense network, by name."""
        values = self.evaluate((), np.zeros((1, 0), dtype=np.int64))
        return {name: value[0].item() for name, value in values.items()}

    def with_cost(self, name: str, cost: Formula | UserCost) -> CostModel:
        """A copy with one more cost."""
        return CostModel(self.widths, {**self.costs, name: cost})


def evaluated(cost: Formula | UserCost, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
    """(n,) values of a cost at (n, u) kept counts of the u named units."""
    if isinstance(cost, Formula):
        return cost.evaluate(units, kept)
    if is_vectorised(cost):
        with ending_forks():
            return np.asarray(cost(dict(zip(units, np.asarray(kept).T, strict=True))))
    rows = [dict(zip(units, row, strict=True)) for row in kept.tolist()]
    with ending_forks():
        return np.array([float(cost(row)) for row in rows])
