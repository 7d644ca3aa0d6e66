"""Prunes in two stages: equal shares of all widths, then whole branches one after the other.

Sandri, Cunegatti and Iacca, 2SSP: A Two-Stage Framework for Structured Pruning of LLMs, TMLR 2025,
https://arxiv.org/abs/2501.17771, algorithm 1 and equation 4: the number of attention branches that go follows from the
share to remove, each MLP loses the same share of its neurons, and every round of the second stage removes the branch
without which the perplexity is least. Departures: shares are of the first cost, where the paper has parameters; many
budgets are planned; where branches do not cost the same, more of them may go until the budget is met; losses are those
of the whole selection set, where the paper has one sequence; weights are compensated.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.errors import ConfigError
from autoprune.plan.ladder import branches_beside_widths, uniform_levels
from autoprune.searchers.rules.stepwise import StepwiseSearch


class TwoStageSearch(StepwiseSearch):
    """Proposes dense and then, for budgets spread evenly below it, the rounds of the second stage; then it ends.

    In a space of widths alone there is no second stage. A space that fits the paper has neurons and attention branches.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        plans: the number of budgets.
        alpha: the exponent's divisor in the number of branches; larger values remove more of them.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, problem: Problem, *, seed: int = 0, plans: int = 8, alpha: float = 1.5) -> None:
        if not alpha > 0:
            raise ConfigError(f"expected alpha above 0, got {alpha!r}")
        super().__init__(problem)
        self._alpha = alpha
        self._plans = at_least("plans", plans, 1)
        self._branches = branches_beside_widths(problem.space)

    def _steps(self) -> Iterator[list[Levels]]:
        """The networks to measure, step by step; a step uses the answers to the ones before."""
        yield [self._problem.space.dense.levels]
        least, most = self._problem.reach()[self._goal.cost]
        for budget in np.linspace(self._goal.budget, least, self._plans + 1)[:-1].tolist():
            removed = self.branches_to_remove(1 - budget / most)
            at = self._narrowed(budget, removed)
            if removed == 0 or at is None:
                yield [at] if at is not None else []
                continue
            while at is not None and (removed > 0 or self._cost(at) > budget):
                tried = self._without_another(at)
                yield tried
                at = min(tried, key=self._loss, default=None)
                removed -= 1

    def branches_to_remove(self, share: float) -> int:
        """The number of branches to remove for a share of the whole cost to remove: round(B s^((m / a) / alpha)).

        s is the share of the cost of all B blocks, m the cost of an MLP and a that of an attention branch.
        """
        branches, mlps = self._parts()
        if branches <= 0:
            return 0
        dense = self._problem.reach()[self._goal.cost][1]
        of_blocks = min(share * dense / (branches + mlps), 1.0)
        return round(len(self._branches) * float(of_blocks ** (mlps / branches / self._alpha)))

    def _parts(self) -> tuple[float, float]:
        """The costs of all branches, and of all widths beside them."""
        units = self._problem.space.units
        rows = self._problem.space.kept(np.zeros((3, len(units)), dtype=np.int64)).copy()
        rows[1:, self._branches] = 0
        rows[2] = 0
        dense, without, nothing = self._problem.costs.evaluate(units, rows, (self._goal.cost,))[self._goal.cost]
        return float(dense - without), float(without - nothing)

    def _narrowed(self, budget: float, removed: int) -> Levels | None:
        """The widest uniform network that is within the budget once branches of average cost are removed."""
        rows = uniform_levels(self._problem.space)
        rows = rows[~rows[:, self._branches].any(axis=1)]
        saved = removed * self._parts()[0] / max(len(self._branches), 1)
        costs = self._problem.cost_values(rows, (self._goal.cost,))[self._goal.cost]
        within = np.flatnonzero(costs - saved <= budget + 1e-9 * costs[0])
        return tuple(rows[within[0]].tolist()) if len(within) else None

    def _without_another(self, at: Levels) -> list[Levels]:
        """The networks with one branch less."""
        return [(*at[:branch], 1, *at[branch + 1 :]) for branch in self._branches if at[branch] == 0]

    def _cost(self, levels: Levels) -> float:
        return float(self._problem.cost_values(np.array([levels]), (self._goal.cost,))[self._goal.cost][0])
