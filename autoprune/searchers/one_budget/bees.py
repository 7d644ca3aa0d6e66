"""The artificial bee colony of ABCPruner: bees try to improve networks, and abandon those that do not improve.

Lin et al., Channel Pruning via Automatic Structure Search, IJCAI 2020, https://arxiv.org/abs/2001.08565, algorithm 1.
Departures: a budget is kept, where theirs caps the width of each layer; the loss on the selection set decides, where
theirs trains each network and measures it on test images; sources are chosen by the rank of their loss, which is
independent of scale; bees fly when a candidate is asked for and do not wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals

ATTEMPTS = 100  # largest number of consecutive flights to known networks


@dataclass
class FoodSource:
    """A network that bees try to improve, and the number of failed tries since its last improvement."""

    levels: Levels
    loss: float = math.inf
    trials: int = 0


class BeesSearch:
    """Employed and onlooking bees move a few units of one network towards or away from another.

    Ends when bees find nothing new.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        budget: the limit, as a share of the first cost.
        sources: the number of random networks to start from.
        limit: the number of tries without improvement after which a source is replaced by a random network.
        genes: the number of units that a bee moves.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self, problem: Problem, *, seed: int = 0, budget: float = 0.5, sources: int = 10, limit: int = 5, genes: int = 2
    ) -> None:
        self._proposals = Proposals(problem)
        self._goal = make_goal(problem, budget)
        self._count = at_least("sources", sources, 2)
        self._limit = at_least("limit", limit, 1)
        self._genes = at_least("genes", genes, 1)
        self._rng = np.random.default_rng(seed)
        self._sources: list[FoodSource] = []
        self._sent: dict[Levels, FoodSource | None] = {}  # the source of each network; None for a scout's
        self._flights = 0

    def ask(self, n: int) -> list[Candidate]:
        while self._proposals.queued < n and self._send():
            pass
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        for evaluation in evaluations:
            levels = evaluation.candidate.levels
            losses = self._proposals.losses.get(levels)
            self._return(levels, math.inf if losses is None else self._goal.loss(losses))

    def _send(self) -> bool:
        """Queues the target of one bee; False if all flights end at known networks."""
        for _ in range(ATTEMPTS):
            levels, source = self._flight()
            if self._proposals.add(levels):
                self._sent[levels] = source
                return True
        return False

    def _flight(self) -> tuple[Levels, FoodSource | None]:
        if len(self._sources) < self._count:
            return self._goal.random(self._rng), None
        self._flights += 1
        employed = self._flights % (2 * self._count) < self._count
        index = self._flights % self._count if employed else self._onlooked()
        source = self._sources[index]
        partner = self._sources[(index + int(self._rng.integers(1, self._count))) % self._count]
        return self._moved(source, partner), source

    def _onlooked(self) -> int:
        """A source, drawn with a probability proportional to 0.9 fitness / best fitness + 0.1."""
        losses = np.array([source.loss for source in self._sources])
        ranks = losses.argsort().argsort()  # the fitness is the rank from the worst, independent of scale and sign
        weights = 0.9 * (1 - ranks / max(len(losses) - 1, 1)) + 0.1
        return int(self._rng.choice(len(losses), p=weights / weights.sum()))

    def _moved(self, source: FoodSource, partner: FoodSource) -> Levels:
        """x + R (x - y) in a few units, R uniform in [-1, 1]."""
        levels, sizes = np.array(source.levels), self._goal.problem.space.sizes
        units = self._rng.permutation(len(levels))[: self._genes]
        pull = self._rng.uniform(-1, 1, len(units)) * (levels[units] - np.array(partner.levels)[units])
        levels[units] = np.clip(np.rint(levels[units] + pull), 0, sizes[units] - 1).astype(int)
        return self._goal.fitted(levels, self._rng)

    def _return(self, levels: Levels, loss: float) -> None:
        if levels not in self._sent:
            return
        source = self._sent.pop(levels)
        if source is None:
            if math.isfinite(loss) and len(self._sources) < self._count:
                self._sources.append(FoodSource(levels, loss))
        elif loss < source.loss:
            source.levels, source.loss, source.trials = levels, loss, 0
        else:
            source.trials += 1
            if source.trials > self._limit and source in self._sources:
                self._sources.remove(source)  # a scout looks for a new source
