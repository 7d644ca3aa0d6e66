"""The base of searchers whose networks come in steps, each of which uses all answers to the ones before."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals


class StepwiseSearch(ABC):
    """Proposes the networks of a step that are within the bounds, waits for their answers, and takes the next step."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._goal = make_goal(problem, 1.0)
        self._proposals = Proposals(problem)
        self._course = self._steps()

    def ask(self, n: int) -> list[Candidate]:
        while n > 0 and not self._proposals.queued and not self._proposals.waiting:
            step = next(self._course, None)
            if step is None:
                break
            inside = self._problem.feasible(np.array(step)) if step else ()
            for levels, fits in zip(step, inside, strict=True):
                if fits:
                    self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)

    @abstractmethod
    def _steps(self) -> Iterator[list[Levels]]:
        """The networks to measure, step by step."""

    def _loss(self, levels: Levels) -> float:
        """The loss of a network; infinite if it failed or is outside the bounds."""
        losses = self._proposals.losses
        return self._goal.loss(losses[levels]) if levels in losses else math.inf
