"""Plans for costs that couple many units: greedy descent, improved by knapsacks around the current plan.

The price of a level holds only while the other units stay where they are. So each knapsack may move a unit by a few
levels (a trust region, Conn, Gould, Toint, Trust-Region Methods, 2000); its plan is priced at its true cost, brought
down to the budget, filled up again, and kept if its damage is lower; otherwise the region is halved. Plans never exceed
their budget, and are not proved optimal: known is a lower bound, the least damage within the budget on a cost that is
nowhere above the true one and can be eliminated (plan.exact.relaxed).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from autoprune.core.problem import Problem
from autoprune.plan.exact.front import Plan, unreachable
from autoprune.plan.exact.solver import Solution, relaxed_bound
from autoprune.plan.exact.terms import terms_of
from autoprune.plan.greedy import ascend, descend, step_down, total_damage, unit_costs
from autoprune.plan.knapsack import solve_knapsack

KNAPSACK_ROUNDS = 16  # maximum number of knapsacks per plan
REGION = 4  # initial radius of the trust region, in levels
NARROWED = 33  # number of evenly narrowed networks that a quick plan may start from
PRICE_BUCKETS = 2_000  # coarser than an exact plan's, as the prices are approximate


class Linearised:
    """Plans for any number of budgets on one cost, sharing the descent from the widest network."""

    def __init__(self, problem: Problem, damages: np.ndarray, cost: str) -> None:
        self._problem, self._damages, self._cost = problem, damages, cost

    @property
    def least(self) -> float:
        """The cost at the end of the descent."""
        return self._descent[-1][0]

    def expect(self, budgets: Sequence[float]) -> None:
        """Does nothing: the descent is computed on first use."""

    def solve(self, budget: float) -> Solution:
        """A plan and a bound for one budget; for a user's cost the bound is the sum of the units' least damages."""
        levels = self.plan(budget)
        damage = total_damage(self._damages, levels)
        cost = float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0])
        terms = terms_of(self._problem, self._cost)
        bound = float(self._damages.min(axis=1).sum())
        if terms is not None:
            rows = [row[:size] for row, size in zip(self._damages, terms.sizes, strict=True)]
            bound = max(bound, relaxed_bound(terms, rows, levels.tolist(), budget))
        return Solution(Plan(tuple(levels.tolist()), cost, damage), min(bound, damage), False, "linearised")

    def plan(self, budget: float) -> np.ndarray:
        """(u,) levels; InfeasibleBudget, naming the least cost of the descent, if it does not reach the budget."""
        start = next((levels for cost, levels in self._descent if cost <= budget), None)
        if start is None:
            raise unreachable(budget, self.least)
        levels, region = self._filled(start, budget), REGION
        for _ in range(KNAPSACK_ROUNDS):
            trial = self._filled(self._knapsack(levels, budget, region), budget)
            if total_damage(self._damages, trial) < total_damage(self._damages, levels):
                levels = trial
            else:
                region //= 2
            if region == 0:
                break
        return levels

    def near(self, budget: float) -> Plan:
        """A quick plan: one knapsack around the widest evenly narrowed network within the budget.

        Raises:
            InfeasibleBudget: none of these networks is within the budget; the message names their least cost.
        """
        allowed = [np.flatnonzero(np.isfinite(row)) for row in self._damages]
        paths = [unit[np.linspace(0, len(unit) - 1, NARROWED).round().astype(int)] for unit in allowed]
        rows = np.stack(paths, axis=1)
        costs = self._problem.cost_values(rows, (self._cost,))[self._cost]
        if not (costs <= budget).any():
            raise unreachable(budget, float(costs.min()))
        start = rows[int((costs <= budget).argmax())]
        knapsack = descend(self._problem, self._damages, self._cost, budget, self._knapsack(start, budget, REGION))
        levels = min(start, knapsack, key=lambda levels: total_damage(self._damages, levels))
        cost = float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0])
        return Plan(tuple(levels.tolist()), cost, total_damage(self._damages, levels))

    @functools.cached_property
    def _descent(self) -> list[tuple[float, np.ndarray]]:
        """True costs and (u,) levels from the widest allowed network down to where no move saves cost."""
        levels: np.ndarray | None = np.isfinite(self._damages).argmax(axis=1)
        path = []
        while levels is not None:
            path.append((float(self._problem.cost_values(levels[None], (self._cost,))[self._cost][0]), levels))
            levels = step_down(self._problem, self._damages, self._cost, levels)
        return path

    def _filled(self, levels: np.ndarray, budget: float) -> np.ndarray:
        levels = descend(self._problem, self._damages, self._cost, budget, levels)
        return ascend(self._problem, self._damages, self._cost, budget, levels)

    def _knapsack(self, levels: np.ndarray, budget: float, region: int) -> np.ndarray:
        """(u,) levels of the best plan within the region at prices around (u,) levels; may exceed the budget."""
        table = unit_costs(self._problem, levels, self._cost)
        here = float(table[0, levels[0]])
        near = np.abs(np.arange(table.shape[1]) - levels[:, None]) <= region
        damages = np.where(near, self._damages, np.inf)
        prices = np.where(near, table - here, 0.0)
        width = float(np.ptp(prices, axis=1).sum()) / PRICE_BUCKETS
        chosen = solve_knapsack(list(prices), list(damages), budget - here, resolution=width or None)
        return np.array(chosen.choice)
