"""Learned global ranking: two numbers per unit that make the positions of all units comparable, for any budget.

Chin, Ding, Zhang, Marculescu, Towards Efficient Model Compression via Learned Global Ranking, CVPR 2020,
https://arxiv.org/abs/1904.12368, equations 2 and 3 and algorithm 1: a position's score is alpha times its squared norm
plus kappa, with one alpha and kappa for each unit; the lowest scores of the whole network are removed until the budget
is met, and aging evolution (Real et al., AAAI 2019, https://arxiv.org/abs/1802.01548) searches for the alphas and
kappas at one budget. The best ranking then serves all budgets. Departures: a child changes at least one unit, where
theirs changes none in a network of fewer than ten layers; both its steps shrink over time, where only alpha's does in
their code; no training before a ranking is judged; counts become the nearest level that keeps no more.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, cost_range
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals

THRESHOLDS = 257  # number of thresholds; the lowest one that meets the budget is taken
STRIDE = 16  # stride of the first, coarse pass over the thresholds


@dataclass(frozen=True, eq=False)
class Ranking:
    """(u,) alphas and kappas, which turn squared norms of positions into scores."""

    alpha: np.ndarray
    kappa: np.ndarray


@dataclass(frozen=True, eq=False)
class JudgedRanking:
    """A ranking with the network that it gives at the budget."""

    ranking: Ranking
    levels: Levels


class LegrSearch:
    """Searches for a ranking at one budget, then follows the best one through all budgets.

    Units without magnitudes in the problem's profiles, such as branches, stay as wide as the bounds allow.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        budget: the budget at which rankings are judged, as a share of the first cost.
        rankings: the number of rankings to judge.
        population: the number of most recent rankings that may breed.
        sample: the number of rankings drawn from these, of which the best is the parent.
        share: the share of units that a child changes.
        plans: the number of budgets for which the best ranking is followed.

    Raises:
        ConfigError: an option is out of range, or no unit's profile has magnitudes.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        budget: float = 0.5,
        rankings: int = 200,
        population: int = 64,
        sample: int = 16,
        share: float = 0.1,
        plans: int = 24,
    ) -> None:
        self._ranked = [u for u, unit in enumerate(problem.space.units) if unit in problem.profiles]
        if not self._ranked:
            raise ConfigError(
                "expected the squared norms of units' positions, got none for any unit of the space. Take another "
                "searcher: rankings need these norms."
            )
        self._proposals = Proposals(problem)
        self._goal = make_goal(problem, budget)
        self._squares = _padded([problem.profiles[problem.space.units[u]].magnitudes for u in self._ranked])
        self._real = ~np.isnan(self._squares)
        self._deviations = np.nanstd(self._squares, axis=1)
        self._narrower = _narrower([problem.space.levels[u] for u in self._ranked], self._squares.shape[1])
        self._rankings = at_least("rankings", rankings, 1)
        self._widest = widest_rest(problem, self._ranked)
        self._sample = at_least("sample", sample, 1)
        self._changed = max(1, round(share * len(self._squares)))
        self._plans = at_least("plans", plans, 1)
        self._rng = np.random.default_rng(seed)
        self._alive: deque[JudgedRanking] = deque(maxlen=at_least("population", population, 1))
        self._best: JudgedRanking | None = None
        self._bred = 0
        self._planned = False

    def ask(self, n: int) -> list[Candidate]:
        while self._proposals.queued < n and self._bred < self._rankings:
            self._breed()
        if self._bred >= self._rankings and not (self._planned or self._proposals.queued or self._proposals.waiting):
            self._planned = True
            for levels in self._plans_of_best():
                self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)

    def _breed(self) -> None:
        """Breeds one more ranking and queues its network unless it is known; the oldest ranking leaves."""
        full = len(self._alive) == self._alive.maxlen
        ranking = self._child(self._parent()) if full else self._drawn()
        judged = JudgedRanking(ranking, self._followed(ranking, self._goal.budget))
        self._bred += 1
        self._keep_best()
        self._alive.append(judged)
        self._proposals.add(judged.levels)

    def _keep_best(self) -> None:
        """Updates the best ranking before one leaves, as answers may have arrived since."""
        rivals = [*self._alive, *([self._best] if self._best else [])]
        self._best = min(rivals, key=self._loss, default=None)

    def _loss(self, judged: JudgedRanking) -> float:
        losses = self._proposals.losses.get(judged.levels)
        return math.inf if losses is None else self._goal.loss(losses)

    def _parent(self) -> Ranking:
        """The best of a few rankings drawn with replacement."""
        drawn = self._rng.integers(len(self._alive), size=self._sample)
        return min((self._alive[int(index)] for index in drawn), key=self._loss).ranking

    def _drawn(self) -> Ranking:
        """alpha = exp(N(0, 1)), kappa = N(0, deviation of the unit's norms); the first ranking compares plain norms."""
        if not self._bred:
            return Ranking(np.ones(len(self._squares)), np.zeros(len(self._squares)))
        return Ranking(np.exp(self._rng.standard_normal(len(self._squares))), self._kappas())

    def _child(self, parent: Ranking) -> Ranking:
        units = self._rng.permutation(len(self._squares))[: self._changed]
        step = 1 - self._bred / (1.25 * self._rankings)  # theirs: 1 - i / 500 over 400 rankings
        alpha, kappa = parent.alpha.copy(), parent.kappa.copy()
        alpha[units] *= np.exp(step * self._rng.standard_normal(len(units)))
        kappa[units] += step * self._kappas()[units]
        return Ranking(alpha, kappa)

    def _kappas(self) -> np.ndarray:
        return np.asarray(self._rng.standard_normal(len(self._deviations)) * self._deviations)

    def _followed(self, ranking: Ranking, budget: float) -> Levels:
        """The widest network within a budget that removes the lowest scores of all units first."""
        scores = ranking.alpha[:, None] * self._squares + ranking.kappa[:, None]  # (r, w), NaN behind a unit's last
        thresholds = np.quantile(scores[self._real], np.linspace(0, 1, THRESHOLDS))
        problem = self._goal.problem
        coarse = self._within(scores, thresholds[::STRIDE], budget)
        last = STRIDE * int(coarse.argmax()) if coarse.any() else len(thresholds) - 1
        some = thresholds[max(last - STRIDE + 1, 0) : last + 1]  # each keeps less and costs less than the one before
        inside = self._within(scores, some, budget)
        return (
            tuple(self._rows(scores, some)[inside.argmax()].tolist()) if inside.any() else problem.space.smallest.levels
        )

    def _within(self, scores: np.ndarray, thresholds: np.ndarray, budget: float) -> np.ndarray:
        """(t,) whether the scores at or above each of (t,) thresholds give a network within budget and bounds."""
        problem, rows = self._goal.problem, self._rows(scores, thresholds)
        return problem.feasible(rows) & (problem.cost_values(rows, (self._goal.cost,))[self._goal.cost] <= budget)

    def _rows(self, scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """(t, u) levels that keep no more than the scores at or above each of (t,) thresholds."""
        kept = (scores >= thresholds[:, None, None]).sum(axis=2)  # (t, r)
        rows = np.repeat(np.array(self._widest)[None], len(thresholds), axis=0)
        rows[:, self._ranked] = self._narrower[np.arange(kept.shape[1]), kept]
        return rows

    def _plans_of_best(self) -> list[Levels]:
        self._keep_best()
        if self._best is None:
            return []
        least, most = cost_range(self._goal.problem, self._goal.cost)
        return [self._followed(self._best.ranking, budget) for budget in np.linspace(most, least, self._plans)]


def widest_rest(problem: Problem, ranked: Sequence[int]) -> Levels:
    """The smallest levels with all but the ranked units dense, or all smallest if the bounds leave no room for that."""
    dense = np.array(problem.space.smallest.levels)
    dense[[u for u in range(len(dense)) if u not in set(ranked)]] = 0
    return tuple(dense.tolist()) if problem.feasible(dense[None])[0] else problem.space.smallest.levels


def _narrower(counts: Sequence[Sequence[int]], widest: int) -> np.ndarray:
    """(r, widest + 1) the level that keeps at most a given number of positions, or the last level."""
    positions = np.arange(widest + 1)
    rows = [np.minimum((np.array(c)[:, None] > positions).sum(axis=0), len(c) - 1) for c in counts]
    return np.stack(rows)


def _padded(norms: Sequence[np.ndarray]) -> np.ndarray:
    """(r, w) the units' numbers, padded with NaN."""
    rows = np.full((len(norms), max(map(len, norms))), np.nan)
    for row, values in zip(rows, norms, strict=True):
        row[: len(values)] = values
    return rows
