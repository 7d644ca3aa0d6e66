"""Plans whose largest damage of any one unit is least: the threshold rule of FastNAS and ALDS.

Each unit takes its narrowest level with a damage of at most t, and t is the least that meets the budget. FastNAS
(NVIDIA Model Optimizer, https://github.com/NVIDIA/Model-Optimizer) bisects t until an interval is below 1e-5; ALDS
(Liebenwein et al., Compressing Neural Networks: Towards Determining the Optimal Layer-wise Decomposition, NeurIPS 2021,
https://arxiv.org/abs/2107.11442) by a root finder. Departure: only the damages in the table change what t
does, so we price all of them at once and have every budget's least t exactly, for costs that couple units as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.core.problem import Problem
from autoprune.plan.exact.front import Plan, unreachable
from autoprune.plan.exact.solver import Solution


class MinMax:
    """Plans for any number of budgets on one cost that does not fall when more is kept, from (u, l) damages.

    What a plan leaves of its budget stays unused: more of any unit would not lower the largest damage.
    """

    def __init__(self, problem: Problem, errors: np.ndarray, cost: str) -> None:
        first = float(errors.min(axis=1).max())  # below it some unit has no level
        self._thresholds = np.unique(errors[np.isfinite(errors) & (errors >= first)])
        self._levels = np.array([_narrowest(errors, threshold) for threshold in self._thresholds])
        self._costs = problem.cost_values(self._levels)[cost].astype(float)

    @property
    def least(self) -> float:
        """The cost of the narrowest levels."""
        return float(self._costs[-1])

    def expect(self, budgets: Sequence[float]) -> None:
        """Nothing: plans take no time."""

    def solve(self, budget: float) -> Solution:
        """The plan of the least threshold; InfeasibleBudget, naming the least cost, when none is within the budget."""
        within = np.flatnonzero(self._costs <= budget)
        if not len(within):
            raise unreachable(budget, self.least)
        first = within[0]
        error = float(self._thresholds[first])
        plan = Plan(tuple(self._levels[first].tolist()), float(self._costs[first]), error)
        return Solution(plan, error, True, "exact")

    def near(self, budget: float) -> Plan:
        """The same plan: it takes no time."""
        return self.solve(budget).plan


def _narrowest(errors: np.ndarray, threshold: float) -> np.ndarray:
    """(u,) the last level of each unit whose damage is at most the threshold."""
    allowed = errors <= threshold
    return np.asarray(errors.shape[1] - 1 - allowed[:, ::-1].argmax(axis=1))
