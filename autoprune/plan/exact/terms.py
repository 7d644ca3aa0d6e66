"""A cost as a sum of tables over the levels of few units each: the input of elimination."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.cost import Formula, Polynomial
from autoprune.core.problem import Problem
from autoprune.core.sparse import SparseCost, SparseWeight

LARGEST_TABLE = 1 << 20  # largest number of entries of a table

Scope = tuple[int, ...]  # units of a table's axes, ascending


@dataclass(frozen=True)
class Terms:
    """A cost: `constant` plus one entry of every table. A scope names units; its table has one axis for each of them.

    `sizes` are the (u,) numbers of options.
    """

    sizes: tuple[int, ...]
    tables: Mapping[Scope, np.ndarray]
    constant: float = 0.0

    @property
    def reach(self) -> float:
        """The sum of all tables' ranges, an upper limit of the cost difference of two plans."""
        return float(sum(np.ptp(table) for table in self.tables.values()))

    @property
    def divisor(self) -> int:
        """A common divisor of all cost differences between plans; 0 if a cost is not an integer or all are equal."""
        above = [(table - table.min()).ravel() for table in self.tables.values()]
        values = np.concatenate([np.zeros(1), *above])
        if not (values == np.rint(values)).all() or values.max() > 2**53:
            return 0
        return int(np.gcd.reduce(values.astype(np.int64)))

    def cost(self, choices: np.ndarray) -> np.ndarray:
        """(n,) costs of (n, u) options, summed scope by scope."""
        units, strides, starts, entries = self._entries
        places = starts + (choices[:, units] * strides).sum(axis=1)  # (n, tables)
        columns = np.concatenate([np.full((len(choices), 1), self.constant), entries[places]], axis=1)
        return np.asarray(columns.cumsum(axis=1)[:, -1])

    @functools.cached_property
    def _entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The entries of all tables, concatenated, and how to index them.

        For each table: the units of its axes and their strides, (axes, tables), and its offset. Tables with fewer axes
        than others have strides of 0.
        """
        axes = max(map(len, self.tables), default=0)
        units, strides = np.zeros((2, axes, len(self.tables)), dtype=np.intp)
        for number, (scope, table) in enumerate(self.tables.items()):
            units[: len(scope), number] = scope
            strides[: len(scope), number] = [math.prod(table.shape[axis + 1 :]) for axis in range(len(scope))]
        starts = np.cumsum([0, *(table.size for table in self.tables.values())])[:-1]
        return units, strides, starts, np.concatenate([np.zeros(0), *map(np.ravel, self.tables.values())])

    def restricted(self, allowed: Sequence[np.ndarray]) -> Terms:
        """The cost over the allowed options alone, given by their (k,) indices for each unit."""
        tables = {s: table[np.ix_(*(allowed[unit] for unit in s))] for s, table in self.tables.items()}
        return Terms(tuple(len(options) for options in allowed), tables, self.constant)


@dataclass(frozen=True)
class TabledCost(Formula):
    """A cost given by its terms over the levels of a space's units, in their order.

    For problems made up for planning, in which a unit's count encodes its level and nothing else: `widest` are the (u,)
    counts of level 0, and each level keeps one less.
    """

    terms: Terms
    widest: tuple[int, ...]

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        return self.terms.cost(np.array(self.widest) - np.asarray(kept))


def separable(costs: Sequence[np.ndarray]) -> Terms:
    """The terms of a cost that is a sum of one (l,) array for each unit."""
    return Terms(tuple(len(cost) for cost in costs), {(unit,): cost for unit, cost in enumerate(costs)})


def terms_of(problem: Problem, cost: str) -> Terms | None:
    """The terms of a problem's cost, one table for units that share a monomial, a table or a weight with zeros.

    Returns None for a user's function, whose form is unknown, and for a weight that depends on the joint levels of so
    many units that the table would have more than LARGEST_TABLE entries.
    """
    formula = problem.costs.costs[cost]
    if isinstance(formula, TabledCost):
        return formula.terms
    if isinstance(formula, Polynomial):
        return _of_polynomial(problem, formula)
    if not isinstance(formula, SparseCost):
        return None
    terms = _of_polynomial(problem, formula.rest)
    tables, constant = dict(terms.tables), terms.constant
    for weight, factor in formula.weights:
        scope = tuple(u for u, unit in enumerate(problem.space.units) if unit in weight.units)
        if math.prod(terms.sizes[unit] for unit in scope) > LARGEST_TABLE:
            return None
        table = factor * _entries(problem, weight, scope)
        if scope:
            tables[scope] = tables.get(scope, 0.0) + table
        else:
            constant += float(table)
    return Terms(terms.sizes, tables, constant)


def _entries(problem: Problem, weight: SparseWeight, scope: Scope) -> np.ndarray:
    """The table of a weight's kept entries, with an axis for each unit of the scope."""
    levels = [problem.space.levels[unit] for unit in scope]
    named = [problem.space.units[unit] for unit in scope]
    joint = np.array(list(itertools.product(*levels)), dtype=np.int64).reshape(-1, len(scope))
    fixed = [unit for unit in sorted(weight.units) if unit not in named]
    dense = np.tile(np.array([problem.costs.widths[unit] for unit in fixed], dtype=np.int64), (len(joint), 1))
    kept = weight.evaluate([*named, *fixed], np.concatenate([joint, dense], axis=1))
    return kept.reshape([len(counts) for counts in levels]).astype(float)


def _of_polynomial(problem: Problem, polynomial: Polynomial) -> Terms:
    constant, tables = 0.0, dict[Scope, np.ndarray]()
    index = {unit: u for u, unit in enumerate(problem.space.units)}
    for monomial, coefficient in polynomial.terms.items():
        fixed = math.prod(problem.costs.widths[unit] for unit in monomial if unit not in index)
        factors = _factors(problem, [index[unit] for unit in monomial if unit in index])
        if not factors:
            constant += coefficient * fixed
            continue
        scope = tuple(factors)
        tables[scope] = tables.get(scope, 0.0) + coefficient * fixed * product(list(factors.values()))
    return Terms(tuple(problem.space.sizes.tolist()), tables, constant)


def _factors(problem: Problem, units: Sequence[int]) -> dict[int, np.ndarray]:
    """For each unit of a monomial, in ascending order, the (l,) powers of its kept counts."""
    return {u: np.array(problem.space.levels[u], float) ** units.count(u) for u in sorted(set(units))}


def product(factors: Sequence[np.ndarray]) -> np.ndarray:
    """The table of all products of one entry from each (l,) array, with one axis per array."""
    table = np.ones(())
    for factor in factors:
        table = np.multiply.outer(table, factor)
    return table
