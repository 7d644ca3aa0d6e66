"""Random search that covers the whole range of costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.plan.repair import stratified
from autoprune.searchers.common.proposals import Proposals

ATTEMPTS = 50  # after this many consecutive known draws the rest is enumerated


class RandomSearch:
    """Dense first, if the bounds allow it, then random levels moved to a target cost drawn uniformly.

    The target is uniform over the reachable range of the first cost objective, since levels drawn uniformly would cover
    only the middle of it. Never ends in a large space; a small one is finished systematically.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
    """

    def __init__(self, problem: Problem, *, seed: int = 0) -> None:
        self._proposals = Proposals(problem)
        self._rng = np.random.default_rng(seed)
        self._started = False

    def ask(self, n: int) -> list[Candidate]:
        if not self._started:
            self._started = True
            self._add_dense()
        while self._proposals.queued < n and self._draw():
            pass
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)

    def _add_dense(self) -> None:
        problem = self._proposals.problem
        dense = problem.space.dense.levels
        if problem.feasible(np.array([dense]))[0]:
            self._proposals.add(dense)

    def _draw(self) -> bool:
        """Queues one more network; False when the space is exhausted."""
        for _ in range(ATTEMPTS):
            if self._proposals.add(stratified(self._proposals.problem, self._rng, 1)[0]):
                return True
        rest = self._proposals.remaining(1)
        for levels in rest:
            self._proposals.add(levels)
        return bool(rest)
