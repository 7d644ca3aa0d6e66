"""Combines parts of a network that were searched separately: one choice for each part, at the joint network's cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.core.cost import CostModel, Formula
from autoprune.core.problem import Problem
from autoprune.core.space import Levels, SearchSpace
from autoprune.plan.allocation import Allocation, Allocator
from autoprune.plan.exact.terms import TabledCost, Terms, terms_of


@dataclass(frozen=True, eq=False)
class Choices:
    """The options of one part: (k, p) levels of its `units` (positions in the space), and their (k,) damages."""

    units: np.ndarray
    levels: np.ndarray
    damages: np.ndarray


def restricted(problem: Problem, units: np.ndarray, start: Levels) -> Problem:
    """The problem of the units at (p,) positions, the others fixed at (u,) levels; costs are the whole network's."""
    space = problem.space
    counts = dict(zip(space.units, space.kept(start).tolist(), strict=True))
    part = SearchSpace(tuple(space.units[u] for u in units), tuple(space.levels[u] for u in units))
    costs = CostModel({**problem.costs.widths, **counts}, problem.costs.costs)
    return replace(problem, space=part, costs=costs)


class Joiner:
    """Joins of least summed damage within any budget on one cost of the joint network.

    A part plays the role of a unit in an Allocator: if parts share few monomials of the cost, joins are exact. Every
    unit of the problem belongs to one part.
    """

    def __init__(self, problem: Problem, parts: Sequence[Choices], cost: str) -> None:
        self._parts = parts
        self._order = np.argsort(np.concatenate([part.units for part in parts]))
        sizes = tuple(len(part.damages) for part in parts)
        names = tuple(f"part {index}" for index in range(len(parts)))
        costs = {name: self._cost(problem, name, names, sizes) for name in problem.costs.names}
        space = SearchSpace(names, tuple(tuple(range(size, 0, -1)) for size in sizes))
        joint = replace(problem, space=space, costs=CostModel(dict(zip(names, sizes, strict=True)), costs), profiles={})
        table = np.full((len(parts), max(sizes)), np.inf)
        for row, part in zip(table, parts, strict=True):
            row[: len(part.damages)] = part.damages
        self._allocator = Allocator(joint, table, cost)

    @property
    def least(self) -> float:
        """The least cost of any join."""
        return self._allocator.least

    def expect(self, budgets: Sequence[float]) -> None:
        """Precomputes what joins within these budgets share."""
        self._allocator.expect(budgets)

    def join(self, budget: float) -> Levels:
        """(u,) levels; InfeasibleBudget if no join is within the budget and all bounds."""
        return self.levels(self.allocate(budget).levels)

    def allocate(self, budget: float) -> Allocation:
        """The choice of each part, in place of levels, with its proven bound."""
        return self._allocator.allocate(budget)

    def levels(self, chosen: Sequence[int]) -> Levels:
        """(u,) levels of the problem's units for one choice per part."""
        rows = [part.levels[choice] for part, choice in zip(self._parts, chosen, strict=True)]
        return tuple(np.concatenate(rows)[self._order].tolist())

    def _cost(
        self, problem: Problem, cost: str, names: Sequence[str], sizes: tuple[int, ...]
    ) -> Formula | Callable[[Mapping[str, int]], float]:
        """The joint network's cost as a function of the parts' choices."""
        terms = terms_of(problem, cost)
        if terms is not None:
            return TabledCost(coarsened(terms, self._parts), sizes)

        def value(kept: Mapping[str, int]) -> float:
            chosen = [size - kept[name] for name, size in zip(names, sizes, strict=True)]
            return float(problem.cost_values(np.array([self.levels(chosen)]), [cost])[cost][0])

        return value


def coarsened(terms: Terms, parts: Sequence[Choices]) -> Terms:
    """Rewrites a cost over the levels of units as one over the choices of parts."""
    places = {int(unit): (p, column) for p, part in enumerate(parts) for column, unit in enumerate(part.units)}
    tables: dict[tuple[int, ...], np.ndarray] = {}
    for scope, table in terms.tables.items():
        joint = tuple(sorted({places[unit][0] for unit in scope}))
        index = []
        for part, column in (places[unit] for unit in scope):
            shape = [-1 if part == other else 1 for other in joint]
            index.append(parts[part].levels[:, column].reshape(shape))
        sizes = [len(parts[part].damages) for part in joint]
        tables[joint] = tables.get(joint, 0.0) + np.broadcast_to(table[tuple(index)], sizes)
    return Terms(tuple(len(part.damages) for part in parts), tables, terms.constant)
