"""The default search: a ladder, probes, plans, then evolution that repairs what does not add up."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.search.additive import AdditiveSearch
from autoprune.search.closed_form_search import ClosedFormSearch
from autoprune.search.evolution import EvolutionSearch
from autoprune.search.proposals import at_least
from autoprune.search.uniform import UniformSearch

# Of a usual budget of 300 evaluations. On twelve synthetic problems of 20 units with 10 levels, 4 probed levels per
# unit left fronts with 2.7 % more hypervolume after 300 evaluations than 8 did: the evolution needs its share.
PROBES = 96


class AutoSearch:
    """UniformSearch, AdditiveSearch and EvolutionSearch one after the other, each told everything measured so far.

    The ladder comes first so that a search cut short still has a front over the whole range. `probe_levels` None probes
    all levels of a small space and at least two per unit of a large one, about 96 probes in all. `rungs` are the
    ladder's, `plans` and `probe_levels` those of the probes, `population` the evolution's. `closed_forms` counts the
    budgets that closed-form rules are tried at after the ladder (search.closed_form_search); 0: none.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        plans: int = 24,
        probe_levels: int | None = None,
        population: int = 40,
        rungs: int = 12,
        closed_forms: int = 0,
    ) -> None:
        if probe_levels is None:
            probe_levels = max(2, PROBES // len(problem.space.units))
        at_least("closed_forms", closed_forms, 0)
        rules = [ClosedFormSearch(problem, seed=seed, plans=closed_forms)] if closed_forms else []
        self._phases: list[Searcher] = [
            UniformSearch(problem, seed=seed, rungs=rungs),
            *rules,
            AdditiveSearch(problem, seed=seed, plans=plans, probe_levels=probe_levels),
            EvolutionSearch(problem, seed=seed, population=population, rungs=rungs),
        ]
        self._pending: set[Candidate] = set()

    def ask(self, n: int) -> list[Candidate]:
        asked = self._phases[0].ask(n)
        while n > 0 and not asked and not self._pending and len(self._phases) > 1:
            self._phases.pop(0)
            asked = self._phases[0].ask(n)
        self._pending.update(asked)
        return asked

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """This phase and those to come learn from everything."""
        self._pending.difference_update(evaluation.candidate for evaluation in evaluations)
        for phase in self._phases:
            phase.tell(evaluations)
