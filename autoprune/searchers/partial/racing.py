"""Racing: a network is scored part by part of the selection set, and given up once it is significantly dominated.

After Maron and Moore, Hoeffding Races, NIPS 1993, and Birattari et al., A Racing Algorithm for Configuring
Metaheuristics, GECCO 2002. Departures: the race is for a front; the only rival of a network is the best one that was
scored on everything and costs no more; the statistic is Student's t of the differences to it on the same parts (paired,
as all networks are scored on the same examples in the same order), one-sided, with the correction for a sample from a
finite set, as the mean over all parts is what counts (Cochran, Sampling Techniques, 1977, equation 2.20), at a level
that is divided over all looks (Bonferroni): a network that its rival would not dominate on the whole selection set is
given up with a probability of at most `alpha`, as far as means over parts of the examples are normal. A test against
every cheaper network, at a level divided over them, gives up fewer (docs/tried.md).

The source is told of a network once, at the end of its race. Of one that is given up, it is told what the network is
expected to have on everything: the rival's values, and the difference on the parts so far. It is still dominated then.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers.partial.rungs import ProposalSource, Rungs

FIRST_LOOK = 4  # number of parts at a network's first look, before which it is not given up
GROWTH = 1.5  # ratio of parts from one look at a network to the next


class RacingSearch:
    """Networks of `source`, scored on more and more of `parts` equal parts of the examples.

    A rival costs no more in any objective that is a cost, is the best of such networks in the first measured objective,
    and dominates if it is better in all measured ones. Ends when the source has ended.

    Args:
        problem: the problem to search.
        seed: seed of the source.
        source: the name of the searcher that proposes networks.
        source_options: its options.
        parts: the number of equal parts of the selection set.
        alpha: the probability of giving up a network that is not dominated.

    Raises:
        ConfigError: an option is out of range, or every objective is a cost.
    """

    in_parts = True

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        source: str = "evolution",
        source_options: Mapping[str, Any] | None = None,
        parts: int = 32,
        alpha: float = 0.05,
    ) -> None:
        if not 0 < alpha < 1:
            raise ConfigError(f"expected alpha to be a probability, got {alpha!r}")
        parts = at_least("parts", parts, FIRST_LOOK)
        self.fidelities = tuple((part + 1) / parts for part in range(parts))
        self._measured = [o for o in problem.objectives if o.name not in problem.costs.names]
        if not self._measured:
            raise ConfigError("expected an objective that is measured to race for, got costs alone. Add accuracy, say.")
        self._costs = [o.name for o in problem.objectives if o.name in problem.costs.names]
        self._rungs = Rungs(problem, self.fidelities)
        self._source = ProposalSource(problem, seed, source, source_options)
        self._looks = looks(parts)
        self._alpha = alpha
        self._running: dict[Levels, int] = {}  # the look that each network waits for
        self._finished: dict[Levels, np.ndarray] = {}  # (o, p) losses by part of the networks scored on everything

    def ask(self, n: int) -> list[Candidate]:
        while self._rungs.queued < n and self._start():
            pass
        return self._rungs.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for _, evaluation in self._rungs.record(evaluations):
            self._learn(evaluation)

    def _start(self) -> bool:
        """Queues one more network for its first look; False if the source has none."""
        for levels in self._source.draw(1):
            self._running[levels] = 0
            return self._rungs.add([levels], self._looks[0] - 1)
        return False

    def _learn(self, evaluation: Evaluation) -> None:
        levels = evaluation.candidate.levels
        look = self._running.pop(levels)
        if not is_usable(self._rungs.problem, evaluation):
            self._source.tell(evaluation)
            return
        own = np.array([[o.loss(x) for x in evaluation.parts[o.name]] for o in self._measured])
        if self._looks[look] == self._looks[-1]:
            self._finished[levels] = own
            self._source.tell(evaluation)
            return
        rival = self._rival(levels)
        if rival is not None and self._is_worse(own, rival):
            self._source.tell(self._expected(evaluation, own, rival))
            return
        self._running[levels] = look + 1
        self._rungs.add([levels], self._looks[look + 1] - 1)

    def _rival(self, levels: Levels) -> np.ndarray | None:
        """The losses by part of the best network that was scored on everything and costs no more; None without one."""
        rows = [levels, *self._finished]
        costs = self._rungs.problem.cost_values(np.array(rows), self._costs)
        cheap = np.ones(len(rows), dtype=bool)
        for name in self._costs:
            cheap &= costs[name] <= costs[name][0]
        rivals = [self._finished[rows[index]] for index in np.flatnonzero(cheap) if index > 0]
        return min(rivals, key=lambda parts: float(parts[0].mean()), default=None)

    def _is_worse(self, own: np.ndarray, rival: np.ndarray) -> bool:
        """Whether a network is significantly worse than its rival in all measured objectives."""
        seen, parts = own.shape[1], rival.shape[1]
        worse = t_statistic(own - rival[:, :seen]) / math.sqrt(1 - seen / parts)  # (o,)
        return bool(worse.min() > t_quantile(self._alpha / (len(self._looks) - 1), seen - 1))

    def _expected(self, evaluation: Evaluation, own: np.ndarray, rival: np.ndarray) -> Evaluation:
        """An answer with the values expected on everything: the rival's, and the difference on the parts so far."""
        losses = rival.mean(axis=1) + (own - rival[:, : own.shape[1]]).mean(axis=1)
        values = {o.name: o.loss(x) for o, x in zip(self._measured, losses.tolist(), strict=True)}  # own inverse
        return replace(evaluation, values={**evaluation.values, **values})


def looks(parts: int) -> tuple[int, ...]:
    """The numbers of parts at which a network is tested: the first few, then half as many more each, up to all."""
    counts = [min(FIRST_LOOK, parts)]
    while counts[-1] < parts:
        counts.append(min(parts, math.ceil(counts[-1] * GROWTH)))
    return tuple(counts)


def t_statistic(differences: np.ndarray) -> np.ndarray:
    """Student's t of (..., n) differences against a mean of 0, (...); infinite if all are equal and not 0."""
    count = differences.shape[-1]
    mean, deviation = differences.mean(axis=-1), differences.std(axis=-1, ddof=1)
    sure = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    return np.asarray(np.divide(mean * math.sqrt(count), deviation, out=sure, where=deviation > 0))


@functools.cache
def t_quantile(level: float, freedom: int) -> float:
    """The t that is exceeded with probability `level`, by bisection."""
    low, high = 0.0, 1.0
    while t_exceeded(high, freedom) > level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_exceeded(middle, freedom) > level else (low, middle)
    return high


def t_exceeded(t: float, freedom: int) -> float:
    """P(T > t) for t >= 0 (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: exact, for whole degrees of freedom)."""
    theta = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return (1 - inside) / 2
