"""The default search: a ladder, plans from a damage model that learns from them, and evolution in between."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.plan.allocation import Allocator, reachable
from autoprune.plan.damage_model import DamageModel
from autoprune.plan.damages import damage_name, probes
from autoprune.plan.ladder import branches_beside_widths, coarse_to_fine, ladder, removes_branches
from autoprune.searchers.common.budgets import Budgets, SpreadBudgets
from autoprune.searchers.common.proposals import Proposals
from autoprune.searchers.common.rivals import UniformRivals
from autoprune.searchers.fronts.evolution import EvolutionSearch
from autoprune.searchers.rules.search import ClosedFormSearch

SKETCHES = 4  # average number of plans before the probes and after each lot of them
LOTS, LOT = 4, 8  # number of lots that the probes are divided into, and the least size of a lot
GROUP = 3  # number of budgets that are planned for with one damage model where branches are searched beside widths
ROUND = 8  # number of plans, and then of children, per turn after the probes
MANY = 10_000  # more than any rule plans


class AutoSearch:
    """A ladder, one-unit probes with plans in between, then plans and children of an evolution in turn.

    Plans come from a damage model of all answers so far (plan.damage_model), so the first ones are available from the
    start and no worker idles: a plan made before all answers are in simply knows less. A plan that may be worse than
    the uniform network of equal cost is followed by that network (searchers.common.rivals). The search goes on until
    the space is exhausted, or, if it is large, nothing new is found.

    Branches beside widths are opened in stages: widths are probed first, with fewer plans in between. Then branches are
    probed, and every plan that may remove some is accompanied by the one that keeps them. The first budgets are round
    shares of the dense network's cost, and budgets within which all networks are about as bad as the cheapest ones are
    left out.

    Args:
        problem: the problem to search.
        seed: seed of the evolution.
        plans: the number of plans over the range of the first cost, after the probes, if no branches are beside widths.
        probe_levels: the number of levels to probe per unit.
        population: the size of the evolution's population.
        rungs: the largest number of uniform networks to start with.
        closed_forms: the number of budgets at which closed-form rules are tried after the ladder
            (searchers.rules.search); 0 for none.

    Raises:
        ConfigError: an option is out of range, or the problem has no measured objective.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        plans: int = 24,
        probe_levels: int = 1,
        population: int = 40,
        rungs: int = 12,
        closed_forms: int = 0,
    ) -> None:
        damage_name(problem)  # fails early for a problem without a measured objective
        self._proposals = Proposals(problem)
        self._plans = at_least("plans", plans, 1)
        self._probe_levels = at_least("probe_levels", probe_levels, 0)
        self._rungs = at_least("rungs", rungs, 1)
        at_least("closed_forms", closed_forms, 0)
        self._rules = [ClosedFormSearch(problem, seed=seed, plans=closed_forms)] if closed_forms else []
        self._evolution = EvolutionSearch(problem, seed=seed, population=population, rungs=rungs)
        self._model = DamageModel(problem)
        self._branches = branches_beside_widths(problem.space)
        self._budgets = SpreadBudgets(problem, above_worst=bool(self._branches))
        self._rivals = {cost: UniformRivals(problem, cost) for cost in self._budgets.costs}
        self._opening = self._first_steps()
        self._rounds = self._later_steps()

    def ask(self, n: int) -> list[Candidate]:
        fruitless = 0
        while self._proposals.queued < n and fruitless < 2:  # all plans and children may be known already
            first = next(self._opening, None)
            new = self._add(next(self._rounds) if first is None else first)
            fruitless = 0 if new or first is not None else fruitless + 1
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        self._model.tell(evaluations)
        self._evolution.tell(evaluations)
        self._budgets.tell(evaluations)
        for rivals in self._rivals.values():
            for rival in rivals.tell(evaluations):
                self._proposals.add(rival, first=True)

    @property
    def remark(self) -> str:
        """For each cost, the number of plans that are worse than the uniform network of equal cost."""
        return ", ".join(rivals.remark for rivals in self._rivals.values() if rivals.remark)

    def _add(self, step: Iterable[Levels]) -> bool:
        """Queues a step; returns whether any network of it is new."""
        return sum(self._proposals.add(levels) for levels in step) > 0  # all of them: any() would stop at the first

    def _first_steps(self) -> Iterator[Iterable[Levels]]:
        """The steps up to the first full set of plans, each computed on demand from everything known then."""
        problem = self._proposals.problem
        yield coarse_to_fine(ladder(problem, self._rungs))
        for rule in self._rules:
            yield [candidate.levels for candidate in rule.ask(MANY)]
        first, later = _sketches(len(problem.space.units) - len(self._branches))
        if self._branches:
            first, later = first // 2, later // 2  # the plans below are better, and take more evaluations
        yield self._planned(self._budgets.next(first))
        rows = probes(problem, self._probe_levels) if self._probe_levels else []
        widths = [row for row in rows if not removes_branches(problem.space, row)]
        lot = max(LOT, -(-len(problem.space.units) // LOTS))
        for start in range(0, len(widths), lot):
            yield widths[start : start + lot]
            yield self._planned(self._budgets.next(later))
        if not self._branches:
            yield self._planned(self._budgets.next(self._plans))
            return
        yield [row for row in rows if removes_branches(problem.space, row)]
        for budgets in self._budgets.round_shares(GROUP):
            yield self._planned(budgets, removing=(True, False))

    def _later_steps(self) -> Iterator[Iterable[Levels]]:
        """Plans and children in turn, without end."""
        while True:
            yield self._planned(self._budgets.next(ROUND), removing=(True, False) if self._branches else (False,))
            yield [candidate.levels for candidate in self._evolution.ask(ROUND)]

    def _planned(self, budgets: Budgets, *, removing: Sequence[bool] = (False,)) -> Iterator[Levels]:
        """For each budget that can be met, the plan that may remove branches, the one that keeps them, or both."""
        cost, values = budgets
        allocators = [self._allocator(budgets, removes) for removes in removing]
        for value in values:
            for allocator in allocators:
                for levels in reachable(allocator.sketch, [value]):
                    self._rivals[cost].planned(levels)
                    yield levels

    def _allocator(self, budgets: Budgets, removes: bool) -> Allocator:
        cost, values = budgets
        table = self._model.table()
        if not removes:
            table[self._branches, 1:] = np.inf
        allocator = Allocator(self._proposals.problem, table, cost)
        allocator.expect(values)
        return allocator


def _sketches(units: int) -> tuple[int, int]:
    """The number of plans before the probes and after each lot; the first is larger where probing takes long."""
    first = min(max(SKETCHES, units // 8), 3 * SKETCHES)
    return first, (SKETCHES * (LOTS + 1) - first) // LOTS
