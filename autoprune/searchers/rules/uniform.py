"""The ladder of uniform networks: the baseline that any search has to beat, and a seed for most."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.plan.ladder import coarse_to_fine, ladder
from autoprune.searchers.rules.planned import PlannedSearch


class UniformSearch(PlannedSearch):
    """Proposes uniform networks within the bounds, ends first, then midpoints between those proposed.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        rungs: the largest number of networks.

    Raises:
        ConfigError: `rungs` is out of range.
    """

    def __init__(self, problem: Problem, *, seed: int = 0, rungs: int = 20) -> None:
        self._rungs = at_least("rungs", rungs, 1)
        super().__init__(problem)

    def _planned(self) -> Sequence[Levels]:
        return coarse_to_fine(ladder(self._proposals.problem, self._rungs))
