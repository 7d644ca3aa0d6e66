"""From a table of damages to levels for a budget, with what is proved about them.

The cost decides how (see search.exact): a polynomial whose units share monomials with few others is planned by
elimination, which is exact or says by how much it may not be: sums, hubs such as a stage's width, chains, trees. A
polynomial that couples too many units, and a user's function, are planned by greedy descent and knapsacks linearised
around the current plan (search.linearise). A first-order knapsack that keeps prices at the dense network's would return
plans far below their budget, since a channel's MACs fall with its neighbours' widths; every plan here is priced at its
true cost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import numpy as np

from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.exact.front import Plan
from autoprune.plan.exact.solver import Solution, Solver
from autoprune.plan.exact.terms import terms_of
from autoprune.plan.greedy import ascend, descend
from autoprune.plan.linearise import Linearised
from autoprune.plan.minmax import MinMax

Total = Literal["sum", "max"]  # of the damages of all units


def check_total(total: Total) -> Total:
    """The same, or a ConfigError that says what it may be."""
    if total not in get_args(Total):
        raise ConfigError(f"expected the total of damages to be one of {list(get_args(Total))}, got {total!r}")
    return total


@dataclass(frozen=True)
class Allocation:
    """Levels for a budget, and what is known about them.

    `bound`: no levels within the budget have a smaller error, whatever the other bounds; `exact` if these have the
    least. `method` says in a few words how they were found.
    """

    levels: Levels
    cost: float
    error: float
    bound: float
    exact: bool
    method: str

    @property
    def gap(self) -> float:
        """By how much the error may lie above the least one, at most."""
        return self.error - self.bound

    def __str__(self) -> str:
        return "exact" if self.exact else f"{self.method}; error at most {self.gap:.3g} above the optimum"


def reachable(plan: Callable[[float], Levels], budgets: Iterable[float]) -> Iterator[Levels]:
    """A plan for each budget that can be met; none for one below all that worked, which the others do not need."""
    for budget in budgets:
        with contextlib.suppress(InfeasibleBudget):
            yield plan(budget)


def plan(problem: Problem, distortions: np.ndarray, cost: str, budget: float) -> Levels:
    """Levels of least total damage within all bounds and with `cost` at most `budget`; see `Allocator`."""
    return Allocator(problem, distortions, cost).plan(budget)


class Allocator:
    """Plans for any number of budgets on one cost, from one (u, l) table of damages (see search.distortion).

    `total` is what a plan's damage is: the sum over its units, or the largest of them (search.minmax). With one budget
    in all a plan is as good as the cost allows (see the module); where other bounds exclude it, it is moved within
    them greedily. Raises ConfigError for a cost the problem does not have or a unit without an allowed level.
    """

    def __init__(self, problem: Problem, distortions: np.ndarray, cost: str, *, total: Total = "sum") -> None:
        if cost not in problem.costs.names:
            raise ConfigError(f"expected a budget on one of the costs {sorted(problem.costs.names)}, got {cost!r}")
        closed = [unit for unit, row in zip(problem.space.units, distortions, strict=True) if np.isinf(row).all()]
        if closed:
            raise ConfigError(f"expected a measured level for every unit, got none for {closed}. Probe them again.")
        self._problem, self._errors, self._cost, self._total = problem, distortions, cost, check_total(total)
        self._planner = _planner(problem, distortions, cost, total)

    @property
    def least(self) -> float:
        """The least cost of any plan."""
        return self._planner.least

    def expect(self, budgets: Sequence[float]) -> None:
        """Works out at once what plans and sketches for these budgets share, so that each takes less time."""
        self._planner.expect(budgets)

    def plan(self, budget: float) -> Levels:
        """Levels for one budget; InfeasibleBudget when no allowed levels are within it and all bounds."""
        return self.allocate(budget).levels

    def allocate(self, budget: float) -> Allocation:
        """As `plan`, with what is known about the levels."""
        solution = self._planner.solve(budget)
        levels = self._within_bounds(np.array(solution.plan.choice), budget)
        cost = float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0])
        error = self._error(levels)
        moved = tuple(levels.tolist()) != solution.plan.choice
        method = solution.method + (", then moved within the other bounds" if moved else "")
        exact = solution.exact and not moved
        bound = error if exact else min(solution.bound, error)
        return Allocation(tuple(levels.tolist()), cost, error, bound, exact, method)

    def sketch(self, budget: float) -> Levels:
        """Levels for one budget in a fraction of the time of `plan`, about a per cent worse; InfeasibleBudget as there.

        A plan of the front's convex hull, filled up greedily.
        """
        levels = self._within_bounds(np.array(self._planner.near(budget).choice), budget)
        return tuple(ascend(self._problem, self._errors, self._cost, budget, levels).tolist())

    def _error(self, levels: np.ndarray) -> float:
        damages = self._errors[np.arange(len(levels)), levels]
        return float(damages.max() if self._total == "max" else damages.sum())

    def _within_bounds(self, levels: np.ndarray, budget: float) -> np.ndarray:
        if self._problem.feasible(levels[None])[0]:
            return levels
        for bound in self._problem.bounds:
            levels = descend(self._problem, self._errors, bound.name, bound.value, levels)
        return ascend(self._problem, self._errors, self._cost, budget, levels)


class Planner(Protocol):
    """What an Allocator asks for plans on one cost, regardless of other bounds."""

    @property
    def least(self) -> float:
        """The least cost of any plan."""
        ...

    def expect(self, budgets: Sequence[float]) -> None:
        """Works out what plans for these budgets share."""
        ...

    def solve(self, budget: float) -> Solution:
        """A plan for one budget, or InfeasibleBudget that names the least cost."""
        ...

    def near(self, budget: float) -> Plan:
        """A plan within the budget that takes little time, or InfeasibleBudget that names the least cost."""
        ...


def _planner(problem: Problem, distortions: np.ndarray, cost: str, total: Total) -> Planner:
    if total == "max":
        return MinMax(problem, distortions, cost)
    terms = terms_of(problem, cost)
    rows = [row[:size] for row, size in zip(distortions, problem.space.sizes, strict=True)]
    solver = None if terms is None else Solver.of(terms, rows)
    return Linearised(problem, distortions, cost) if solver is None else solver
