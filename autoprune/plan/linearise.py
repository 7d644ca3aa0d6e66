"""Plans for costs that couple many units: greedy descent, improved by knapsacks around the current plan.

Prices of a level hold only with the other units where they are. So each knapsack may move a unit by a few levels
(a trust region, Conn, Gould, Toint, Trust-Region Methods, 2000), its plan is priced at its true cost, brought down to
the budget and filled up again, and kept if its damage is lower; the region is halved where it is not. Plans never
exceed their budget, and are not proved optimal: what is known is a lower bound, the least damage within the budget on a
cost that is nowhere above the true one and can be eliminated (search.exact.relaxed).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from autoprune.core.problem import Problem
from autoprune.plan.exact.front import Plan, unreachable
from autoprune.plan.exact.solver import Solution, relaxed_bound
from autoprune.plan.exact.terms import terms_of
from autoprune.plan.greedy import ascend, descend, step_down, total_error, unit_costs
from autoprune.plan.knapsack import solve

ROUNDS = 16  # knapsacks at most for one plan
REGION = 4  # levels a unit may move at first
NARROWED = 33  # networks from the widest to the narrowest that a cheap plan may begin with
BUCKETS = 2_000  # coarser than an exact plan's: the prices are approximate anyway


class Linearised:
    """Plans for any number of budgets on one cost; the descent from the widest network is shared by all."""

    def __init__(self, problem: Problem, errors: np.ndarray, cost: str) -> None:
        self._problem, self._errors, self._cost = problem, errors, cost

    @property
    def least(self) -> float:
        """The cost the descent ends at."""
        return self._descent[-1][0]

    def expect(self, budgets: Sequence[float]) -> None:
        """Nothing: the descent is found when it is needed."""

    def solve(self, budget: float) -> Solution:
        """A plan and a bound for one budget; of a user's cost only that no unit has less than its least damage."""
        levels = self.plan(budget)
        error = total_error(self._errors, levels)
        cost = float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0])
        terms = terms_of(self._problem, self._cost)
        bound = float(self._errors.min(axis=1).sum())
        if terms is not None:
            rows = [row[:size] for row, size in zip(self._errors, terms.sizes, strict=True)]
            bound = max(bound, relaxed_bound(terms, rows, levels.tolist(), budget))
        return Solution(Plan(tuple(levels.tolist()), cost, error), min(bound, error), False, "linearised")

    def plan(self, budget: float) -> np.ndarray:
        """(u,) levels; InfeasibleBudget, naming the least cost of the descent, when it does not reach the budget."""
        start = next((levels for cost, levels in self._descent if cost <= budget), None)
        if start is None:
            raise unreachable(budget, self.least)
        levels, region = self._filled(start, budget), REGION
        for _ in range(ROUNDS):
            trial = self._filled(self._knapsack(levels, budget, region), budget)
            if total_error(self._errors, trial) < total_error(self._errors, levels):
                levels = trial
            else:
                region //= 2
            if region == 0:
                break
        return levels

    def near(self, budget: float) -> Plan:
        """One knapsack around the widest of evenly narrowed networks within the budget, without the shared descent.

        InfeasibleBudget, naming their least cost, where none is.
        """
        allowed = [np.flatnonzero(np.isfinite(row)) for row in self._errors]
        paths = [unit[np.linspace(0, len(unit) - 1, NARROWED).round().astype(int)] for unit in allowed]
        rows = np.stack(paths, axis=1)
        costs = self._problem.cost_values(rows, (self._cost,))[self._cost]
        if not (costs <= budget).any():
            raise unreachable(budget, float(costs.min()))
        start = rows[int((costs <= budget).argmax())]
        knapsack = descend(self._problem, self._errors, self._cost, budget, self._knapsack(start, budget, REGION))
        levels = min(start, knapsack, key=lambda levels: total_error(self._errors, levels))
        cost = float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0])
        return Plan(tuple(levels.tolist()), cost, total_error(self._errors, levels))

    @functools.cached_property
    def _descent(self) -> list[tuple[float, np.ndarray]]:
        """True costs and (u,) levels from the widest allowed network down to where no move saves any cost."""
        levels: np.ndarray | None = np.isfinite(self._errors).argmax(axis=1)
        path = []
        while levels is not None:
            path.append((float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0]), levels))
            levels = step_down(self._problem, self._errors, self._cost, levels)
        return path

    def _filled(self, levels: np.ndarray, budget: float) -> np.ndarray:
        levels = descend(self._problem, self._errors, self._cost, budget, levels)
        return ascend(self._problem, self._errors, self._cost, budget, levels)

    def _knapsack(self, levels: np.ndarray, budget: float, region: int) -> np.ndarray:
        """(u,) the best plan within the region at prices around (u,) levels; its true cost can exceed the budget."""
        table = unit_costs(self._problem, levels, self._cost)
        here = float(table[0, levels[0]])
        near = np.abs(np.arange(table.shape[1]) - levels[:, None]) <= region
        errors = np.where(near, self._errors, np.inf)
        prices = np.where(near, table - here, 0.0)
        width = float(np.ptp(prices, axis=1).sum()) / BUCKETS
        chosen = solve(list(prices), list(errors), budget - here, resolution=width or None)
        return np.array(chosen.choice)
