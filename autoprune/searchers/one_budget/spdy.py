"""A search over how sensitive units are said to be, with the exact plan for the budget as what they lead to.

SPDY (Frantar and Alistarh, SPDY: Accurate Pruning with Speedup Guarantees, ICML 2022,
https://arxiv.org/abs/2201.13096, section 3.2): sensitivities drawn uniformly at random, the best of which is improved
by drawing a few of its entries again, a tenth of all units at first and fewer and fewer. Every network is within the
budget by construction. Departures: those of the decoder (search.decoder); what is compared is the objective of the
problem, where theirs is the loss of layer-wise reconstructed weights; with several answers outstanding the next draws
are made from the best known so far; sensitivities that lead to a network known already are an attempt like any other
and cost no evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.core.checks import at_least
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.plan.decoder import decode
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals


class SpdySearch:
    """`draws` random sensitivities, then neighbourhoods of the best: `share` of its entries, down to one.

    `attempts` in a row without a better network lead to the next smaller neighbourhood, and end the search in the last
    one. `budget` is a share of the first cost. A plan takes ten milliseconds for 50 units.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        budget: float = 0.5,
        draws: int = 100,
        attempts: int = 100,
        share: float = 0.1,
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"expected share to be above 0 and at most 1, got {share!r}")
        self._proposals = Proposals(problem)
        self._goal = make_goal(problem, budget)
        self._draws = at_least("draws", draws, 1)
        self._attempts = at_least("attempts", attempts, 1)
        self._entries = max(1, round(share * len(problem.space.units)))  # drawn again in a neighbour
        self._rng = np.random.default_rng(seed)
        self._drawn = self._failed = 0  # first draws, and neighbours in a row that were not better
        self._asked: dict[Levels, np.ndarray] = {}  # (u,) sensitivities that led to a network under way
        self._best: np.ndarray | None = None
        self._loss = math.inf

    @property
    def sensitivities(self) -> np.ndarray | None:
        """(u,) those of the best network so far, from 0 to 1; None before there is one."""
        return self._best

    def ask(self, n: int) -> list[Candidate]:
        while self._proposals.queued < n and (drawn := self._next()) is not None:
            self._propose(drawn)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        for evaluation in evaluations:
            drawn = self._asked.pop(evaluation.candidate.levels, None)
            if drawn is not None:
                self._judge(evaluation.candidate.levels, drawn)

    def _next(self) -> np.ndarray | None:
        """(u,) sensitivities to try; None where there is nothing to begin from, or all neighbourhoods are done with."""
        units = len(self._goal.problem.space.units)
        if self._drawn < self._draws:
            self._drawn += 1
            return self._rng.random(units)
        if self._failed >= self._attempts and self._entries > 1:
            self._entries, self._failed = self._entries - 1, 0
        if self._best is None or self._failed >= self._attempts:
            return None
        self._failed += 1
        changed = self._best.copy()
        changed[self._rng.permutation(units)[: self._entries]] = self._rng.random(self._entries)
        return changed

    def _propose(self, drawn: np.ndarray) -> None:
        levels = decode(self._goal.problem, drawn, self._goal.budget, cost=self._goal.cost)
        if self._proposals.add(levels):
            self._asked[levels] = drawn
        else:
            self._judge(levels, drawn)

    def _judge(self, levels: Levels, drawn: np.ndarray) -> None:
        """Keeps sensitivities that led to something better, from which the next are drawn."""
        if levels not in self._proposals.losses:
            return
        loss = self._goal.loss(self._proposals.losses[levels])
        if loss < self._loss:
            self._best, self._loss, self._failed = drawn, loss, 0
