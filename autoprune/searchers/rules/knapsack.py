"""Plans from importance alone: a knapsack over the importance of positions, without a single probe.

HALP (Shen et al., Structural Pruning via Latency-Saliency Knapsack, NeurIPS 2022, https://arxiv.org/abs/2210.06659),
SMCP (Humble et al., Soft Masking for Cost-Constrained Channel Pruning, ECCV 2022, https://arxiv.org/abs/2211.02206) and
Knapsack Pruning with Inner Distillation (Aflalo et al., 2020, https://arxiv.org/abs/2002.08258) keep the positions of
most importance within a budget. Departures: importance is computed in closed form from weights and activations, where
theirs is gathered from gradients during training, and nothing is trained between plans; a position's price is not
frozen at the current widths of the network, every plan has its true cost; the more important positions of a unit are
kept first by construction, where HALP's check of that in a zero-one knapsack is a heuristic. A user's latency is a cost
like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, Profile, cost_range, primary_cost
from autoprune.core.space import Levels
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.allocation import Allocator
from autoprune.searchers.common.rivals import UniformRivals
from autoprune.searchers.one_budget.legr import widest_rest
from autoprune.searchers.rules.planned import PlannedSearch

Importance = Literal["magnitude", "fluctuation"]


class KnapsackSearch(PlannedSearch):
    """Proposes the plans at `plans` budgets spread evenly over a cost, the largest first, and ends.

    A plan is followed by the uniform network of equal cost (searchers.common.rivals). Units without importance in the
    problem's profiles, branches among them, stay as wide as the bounds allow; budgets that leave no room for them get
    the smallest network.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        plans: the number of budgets.
        importance: "magnitude", the squared norms of the weights that produce a position, or "fluctuation", these times
            the variance of its activation. A level's damage is the importance that it removes.
        relative: whether the removed importance is divided by the kept importance of its unit, since norms of different
            layers do not compare; the papers do not divide. We first divided by the whole unit's, and plans emptied
            units of many positions with little importance each.
        cost: the cost that budgets limit; None for the first.

    Raises:
        ConfigError: no unit has importance, or the importance or the cost is unknown.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        plans: int = 24,
        importance: Importance = "magnitude",
        relative: bool = True,
        cost: str | None = None,
    ) -> None:
        if importance not in get_args(Importance):
            raise ConfigError(f"expected importance to be one of {list(get_args(Importance))}, got {importance!r}")
        if cost is not None and cost not in problem.costs.names:
            raise ConfigError(f"expected cost to be one of {list(problem.costs.names)}, got {cost!r}")
        self._plans = at_least("plans", plans, 1)
        super().__init__(problem)
        self._table = removed_importance(problem, importance, relative)
        self._cost = cost or primary_cost(problem)
        self._rivals = UniformRivals(problem, self._cost)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        super().tell(evaluations)
        for rival in self._rivals.tell(evaluations):
            self._proposals.add(rival, first=True)

    @property
    def remark(self) -> str:
        """The number of plans that are worse than the uniform network of equal cost."""
        return self._rivals.remark

    def _planned(self) -> list[Levels]:
        problem = self._proposals.problem
        allocator = Allocator(problem, self._table, self._cost)
        least, most = cost_range(problem, self._cost)
        budgets = np.linspace(most, least, self._plans).tolist()
        allocator.expect(budgets)
        planned = []
        for budget in budgets:
            try:
                planned.append(allocator.plan(budget))
            except InfeasibleBudget:
                planned.append(problem.space.smallest.levels)
        for levels in planned:
            self._rivals.planned(levels)
        return planned


def removed_importance(problem: Problem, importance: Importance, relative: bool) -> np.ndarray:
    """(u, l) importance that each level removes; infinite for a missing level, and for fixed units at all but one.

    Raises:
        ConfigError: no unit's profile holds the statistics that the importance needs.
    """
    values = [_importance(problem.profiles.get(unit), importance) for unit in problem.space.units]
    ranked = [unit for unit, value in enumerate(values) if value is not None]
    if not ranked:
        raise ConfigError(
            f"expected the statistics of {importance!r} in the profile of at least one unit, got none in a space of "
            f"{len(values)} units. Take another importance or another searcher: a knapsack is filled by it."
        )
    rest = widest_rest(problem, ranked)
    table = np.full((len(values), int(problem.space.sizes.max())), np.inf)
    for unit, (counts, value) in enumerate(zip(problem.space.levels, values, strict=True)):
        if value is None:
            table[unit, rest[unit]] = 0.0
        else:
            table[unit, : len(counts)] = _removed(value, np.array(counts), relative)
    return table


def _importance(profile: Profile | None, importance: Importance) -> np.ndarray | None:
    """(n,) importance of a unit's positions; None if it is unknown."""
    if profile is None or importance == "magnitude":
        return None if profile is None else profile.magnitudes
    return None if profile.fluctuation is None else profile.magnitudes * profile.fluctuation


def _removed(values: np.ndarray, counts: np.ndarray, relative: bool) -> np.ndarray:
    """(l,) sums of the least important positions that are removed when (l,) counts are kept, the first of which is all.

    A count within a group, as weights' patterns have, stands for that share of the (n,) positions.
    """
    gone = len(values) - np.ceil(counts * len(values) / counts[0]).astype(int)
    sums: np.ndarray = np.concatenate([[0.0], np.cumsum(np.sort(values))])
    if not relative or sums[-1] == 0:
        return np.asarray(sums[gone])
    stays = sums[-1] - sums[gone]
    return np.asarray(np.divide(sums[gone], stays, out=np.full(len(counts), np.inf), where=stays > 0))
