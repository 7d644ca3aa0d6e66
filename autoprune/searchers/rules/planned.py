"""The base of searchers that plan all their networks at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.searchers.common.proposals import Proposals


class PlannedSearch(ABC):
    """Plans all networks at the first ask, proposes them in order, and ends."""

    def __init__(self, problem: Problem) -> None:
        self._proposals = Proposals(problem)
        self._is_planned = False

    def ask(self, n: int) -> list[Candidate]:
        if not self._is_planned:
            self._is_planned = True
            for levels in self._planned():
                self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)

    @abstractmethod
    def _planned(self) -> Iterable[Levels]:
        """The networks to propose, in order."""
