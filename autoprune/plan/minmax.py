"""Plans that minimise the largest damage of any one unit: the threshold rule of FastNAS and ALDS.

Each unit takes its narrowest level with a damage of at most t, and t is the least that meets the budget. FastNAS
(NVIDIA Model Optimizer, https://github.com/NVIDIA/Model-Optimizer) bisects t until an interval is below 1e-5; ALDS
(Liebenwein et al., Compressing Neural Networks: Towards Determining the Optimal Layer-wise Decomposition, NeurIPS 2021,
https://arxiv.org/abs/2107.11442) uses a root finder. Departure: the result changes only at the damages in the table, so
we price all of them at once and find every budget's least t exactly, for costs that couple units as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.core.problem import Problem
from autoprune.plan.exact.front import Plan, unreachable
from autoprune.plan.exact.solver import Solution


class MinMax:
    """Plans for any number of budgets on one cost that does not fall when more is kept, from (u, l) damages.

    A plan may leave part of its budget unused: widening other units would not lower the largest damage.
    """

    def __init__(self, problem: Problem, damages: np.ndarray, cost: str) -> None:
        first = float(damages.min(axis=1).max())  # below this threshold some unit has no level
        self._thresholds = np.unique(damages[np.isfinite(damages) & (damages >= first)])
        self._levels = np.array([_narrowest(damages, threshold) for threshold in self._thresholds])
        self._costs = problem.cost_values(self._levels)[cost].astype(float)

    @property
    def least(self) -> float:
        """The cost of the narrowest levels."""
        return float(self._costs[-1])

    def expect(self, budgets: Sequence[float]) -> None:
        """Does nothing: plans take no time."""

    def solve(self, budget: float) -> Solution:
        """The plan of the least threshold; InfeasibleBudget, naming the least cost, if none is within the budget."""
        within = np.flatnonzero(self._costs <= budget)
        if not len(within):
            raise unreachable(budget, self.least)
        first = within[0]
        damage = float(self._thresholds[first])
        plan = Plan(tuple(self._levels[first].tolist()), float(self._costs[first]), damage)
        return Solution(plan, damage, True, "exact")

    def near(self, budget: float) -> Plan:
        """The plan of `solve`, which takes no time."""
        return self.solve(budget).plan


def _narrowest(damages: np.ndarray, threshold: float) -> np.ndarray:
    """(u,) the last level of each unit with a damage of at most the threshold."""
    allowed = damages <= threshold
    return np.asarray(damages.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1))
