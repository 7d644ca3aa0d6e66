"""Random search over sensitivities of units, each turned into the exact plan for the budget.

SPDY (Frantar and Alistarh, SPDY: Accurate Pruning with Speedup Guarantees, ICML 2022, https://arxiv.org/abs/2201.13096,
section 3.2): sensitivities are drawn uniformly at random; the best are improved by redrawing a few entries, at first a
tenth of all units and then fewer and fewer. Every network is within the budget by construction. Departures: those of
the decoder (plan.decoder); networks are compared by the problem's objective, where theirs uses the loss of layer-wise
reconstructed weights; with several answers outstanding the next draws start from the best known so far; sensitivities
that lead to a known network are an attempt like any other and cost no evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.plan.decoder import decode
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals


class SpdySearch:
    """Random sensitivities, then ever smaller neighbourhoods of the best ones.

    A plan takes ten milliseconds for 50 units.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        budget: the limit, as a share of the first cost.
        draws: the number of random sensitivities to start with.
        attempts: the number of consecutive attempts without improvement that lead to the next smaller neighbourhood, or
            end the search in the last one.
        share: the share of entries redrawn in the first neighbourhood; the last one redraws a single entry.

    Raises:
        ConfigError: an option is out of range.
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
        self._entries = max(1, round(share * len(problem.space.units)))  # number of entries redrawn in a neighbour
        self._rng = np.random.default_rng(seed)
        self._drawn = self._failed = 0  # first draws, and consecutive neighbours without improvement
        self._asked: dict[Levels, np.ndarray] = {}  # (u,) sensitivities of the pending networks
        self._best: np.ndarray | None = None
        self._loss = math.inf

    @property
    def sensitivities(self) -> np.ndarray | None:
        """The (u,) sensitivities of the best network so far, from 0 to 1; None before the first."""
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
        """(u,) sensitivities to try; None if there are none to start from, or all neighbourhoods are finished."""
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
        """Keeps sensitivities that led to an improvement; the next are drawn around them."""
        if levels not in self._proposals.losses:
            return
        loss = self._goal.loss(self._proposals.losses[levels])
        if loss < self._loss:
            self._best, self._loss, self._failed = drawn, loss, 0
