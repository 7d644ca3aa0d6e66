"""From a table of damages to levels for a budget, with a bound on how far they are from optimal.

The cost decides the method (see plan.exact): a polynomial whose units share monomials with few others is planned by
elimination, which is exact or bounds its gap: sums, hubs such as a stage's width, chains, trees. A polynomial that
couples too many units, and a user's function, are planned by greedy descent and knapsacks linearised around the current
plan (plan.linearise). A first-order knapsack that keeps prices at the dense network's would return plans far below
their budget, since a channel's MACs fall with its neighbours' widths; every plan here is priced at its true cost.
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

Total = Literal["sum", "max"]  # how the units' damages combine


def check_total(total: Total) -> Total:
    """Returns `total`, or raises ConfigError for an unknown one."""
    if total not in get_args(Total):
        raise ConfigError(f"expected the total of damages to be one of {list(get_args(Total))}, got {total!r}")
    return total


@dataclass(frozen=True)
class Allocation:
    """Levels for a budget, and what is proved about them.

    Attributes:
        levels: (u,) level indices.
        cost: their true cost.
        damage: their total damage in the table.
        bound: no levels within the budget have less damage, whatever the other bounds.
        exact: whether these levels have the least damage.
        method: how they were found, in a few words.
    """

    levels: Levels
    cost: float
    damage: float
    bound: float
    exact: bool
    method: str

    @property
    def gap(self) -> float:
        """An upper limit of the damage above the optimum."""
        return self.damage - self.bound

    def __str__(self) -> str:
        return "exact" if self.exact else f"{self.method}; damage at most {self.gap:.3g} above the optimum"


def reachable(plan: Callable[[float], Levels], budgets: Iterable[float]) -> Iterator[Levels]:
    """The plans for the budgets that can be met; the others are skipped."""
    for budget in budgets:
        with contextlib.suppress(InfeasibleBudget):
            yield plan(budget)


def plan(problem: Problem, damages: np.ndarray, cost: str, budget: float) -> Levels:
    """Levels of least total damage within all bounds and with `cost` at most `budget`; see `Allocator`."""
    return Allocator(problem, damages, cost).plan(budget)


class Allocator:
    """Plans for any number of budgets on one cost, from one (u, l) table of damages (see plan.damages).

    `total` says how the units' damages combine: their sum, or their maximum (plan.minmax). If the budget is the only
    bound, a plan is as good as the cost allows (see the module); if other bounds exclude it, it is moved within them
    greedily.

    Raises:
        ConfigError: the problem has no such cost, or a unit has no allowed level.
    """

    def __init__(self, problem: Problem, damages: np.ndarray, cost: str, *, total: Total = "sum") -> None:
        if cost not in problem.costs.names:
            raise ConfigError(f"expected a budget on one of the costs {sorted(problem.costs.names)}, got {cost!r}")
        closed = [unit for unit, row in zip(problem.space.units, damages, strict=True) if np.isinf(row).all()]
        if closed:
            raise ConfigError(f"expected a measured level for every unit, got none for {closed}. Probe them again.")
        self._problem, self._damages, self._cost, self._total = problem, damages, cost, check_total(total)
        self._planner = _planner(problem, damages, cost, total)

    @property
    def least(self) -> float:
        """The least cost of any plan."""
        return self._planner.least

    def expect(self, budgets: Sequence[float]) -> None:
        """Precomputes what plans and sketches for these budgets share, so that each takes less time."""
        self._planner.expect(budgets)

    def plan(self, budget: float) -> Levels:
        """Levels for one budget; InfeasibleBudget if no allowed levels are within it and all bounds."""
        return self.allocate(budget).levels

    def allocate(self, budget: float) -> Allocation:
        """Like `plan`, with what is proved about the levels."""
        solution = self._planner.solve(budget)
        levels = self._within_bounds(np.array(solution.plan.choice), budget)
        cost = float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0])
        damage = self._damage(levels)
        moved = tuple(levels.tolist()) != solution.plan.choice
        method = solution.method + (", then moved within the other bounds" if moved else "")
        exact = solution.exact and not moved
        bound = damage if exact else min(solution.bound, damage)
        return Allocation(tuple(levels.tolist()), cost, damage, bound, exact, method)

    def sketch(self, budget: float) -> Levels:
        """Levels for one budget in a fraction of the time of `plan`, about one per cent worse.

        A plan of the front's convex hull, filled up greedily. Raises InfeasibleBudget like `plan`.
        """
        levels = self._within_bounds(np.array(self._planner.near(budget).choice), budget)
        return tuple(ascend(self._problem, self._damages, self._cost, budget, levels).tolist())

    def _damage(self, levels: np.ndarray) -> float:
        damages = self._damages[np.arange(len(levels)), levels]
        return float(damages.max() if self._total == "max" else damages.sum())

    def _within_bounds(self, levels: np.ndarray, budget: float) -> np.ndarray:
        if self._problem.feasible(levels[None])[0]:
            return levels
        for bound in self._problem.bounds:
            levels = descend(self._problem, self._damages, bound.name, bound.value, levels)
        return ascend(self._problem, self._damages, self._cost, budget, levels)


class Planner(Protocol):
    """Makes plans on one cost for an Allocator, regardless of other bounds."""

    @property
    def least(self) -> float:
        """The least cost of any plan."""
        ...

    def expect(self, budgets: Sequence[float]) -> None:
        """Precomputes what plans for these budgets share."""
        ...

    def solve(self, budget: float) -> Solution:
        """A plan for one budget, or InfeasibleBudget that names the least cost."""
        ...

    def near(self, budget: float) -> Plan:
        """A plan within the budget that takes little time, or InfeasibleBudget that names the least cost."""
        ...


def _planner(problem: Problem, damages: np.ndarray, cost: str, total: Total) -> Planner:
    if total == "max":
        return MinMax(problem, damages, cost)
    terms = terms_of(problem, cost)
    rows = [row[:size] for row, size in zip(damages, problem.space.sizes, strict=True)]
    solver = None if terms is None else Solver.of(terms, rows)
    return Linearised(problem, damages, cost) if solver is None else solver
