"""Plans from one-unit probes: measure each unit's damage alone, add up, and measure the best sums as whole networks.

The additive-distortion method of RD_PRUNE (Xu et al., ICCV 2023, https://arxiv.org/abs/2308.10438) and of OBC (Frantar
and Alistarh, NeurIPS 2022, https://arxiv.org/abs/2208.11580), section 3 there, with these departures: every budget is
planned from the same probes, costs that couple neighbouring widths are planned at their true value (see
plan.allocation), rounding never exceeds a budget, and every plan is measured as a whole network, since damages do not
simply add up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Candidate, Levels
from autoprune.plan.allocation import Allocator, Total, check_total, reachable
from autoprune.plan.damages import damage_name, damage_table, probes
from autoprune.searchers.common.proposals import Proposals
from autoprune.searchers.common.rivals import UniformRivals
from autoprune.searchers.fronts.refinement import Refinement


class AdditiveSearch:
    """Proposes the probes and, once all are answered, plans at `plans` budgets spread evenly over the first cost.

    A plan is followed by the uniform network of equal cost (searchers.common.rivals). Then the best known networks
    within `refined` budgets are improved one after the other (searchers.fronts.refinement): the first budget is the
    bound on the cost, the others lie evenly below it.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        plans: the number of budgets to plan for.
        probe_levels: the number of levels to probe per unit, None for all; levels between are interpolated.
        total: the damage that plans minimise: the "sum" over units, or the "max" as in FastNAS and ALDS.
        refined: the number of budgets to refine plans for.

    Raises:
        ConfigError: an option is out of range, or the problem has no measured objective.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        plans: int = 24,
        probe_levels: int | None = None,
        total: Total = "sum",
        refined: int = 0,
    ) -> None:
        damage_name(problem)  # fails early for a problem without a measured objective
        self._plans = at_least("plans", plans, 1)
        self._probe_levels = None if probe_levels is None else at_least("probe_levels", probe_levels, 1)
        self._total = check_total(total)
        self._refined = at_least("refined", refined, 0)
        self._refinements: deque[Refinement] = deque()
        self._proposals = Proposals(problem)
        self._rivals = UniformRivals(problem, primary_cost(problem))
        self._measured: list[Evaluation] = []
        self._phase = "start"

    def ask(self, n: int) -> list[Candidate]:
        if self._phase == "start":
            self._phase = "probes"
            for levels in probes(self._proposals.problem, self._probe_levels):
                self._proposals.add(levels)
        if self._phase == "probes" and not self._proposals.queued and not self._proposals.waiting:
            self._phase = "plans"
            for levels in self._planned():
                self._proposals.add(levels)
                self._rivals.planned(levels)
        if self._phase == "plans" and not self._proposals.queued and not self._proposals.waiting:
            self._phase = "refinements"
            self._refinements.extend(self._begun())
        if self._phase == "refinements":
            return self._refining(n)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        self._measured += evaluations
        for rival in self._rivals.tell(evaluations):
            self._proposals.add(rival, first=True)
        for refinement in self._refinements:
            refinement.tell(evaluations)

    @property
    def remark(self) -> str:
        """The number of plans that are worse than the uniform network of equal cost."""
        return self._rivals.remark

    def _begun(self) -> Iterator[Refinement]:
        """One refinement per budget, told of everything measured."""
        problem = self._proposals.problem
        cost = primary_cost(problem)
        table = damage_table(problem, self._measured)
        least, most = cost_range(problem, cost)
        bounded = most < problem.reach()[cost][1]
        steps = self._refined if bounded else self._refined + 1  # without a bound the largest is the dense network's
        for budget in np.linspace(most, least, steps + 1)[steps - self._refined : -1].tolist():
            refinement = Refinement(problem, table, cost, budget)
            refinement.tell(self._measured)
            yield refinement

    def _refining(self, n: int) -> list[Candidate]:
        """The proposals of the first refinement that has not ended."""
        while self._refinements:
            asked = self._refinements[0].ask(n)
            if asked or n == 0 or self._refinements[0].waiting:
                return asked
            self._refinements.popleft()
        return []

    def _planned(self) -> list[Levels]:
        """One plan per budget; none if failed probes leave no measured network within it."""
        problem = self._proposals.problem
        table = damage_table(problem, self._measured)
        if np.isinf(table).all(axis=1).any():
            return []  # a unit without a single successful level cannot be planned
        cost = primary_cost(problem)
        allocator = Allocator(problem, table, cost, total=self._total)
        most = cost_range(problem, cost)[1]
        budgets = np.linspace(min(allocator.least, most), most, self._plans).tolist()
        allocator.expect(budgets)
        return list(reachable(allocator.plan, budgets))
