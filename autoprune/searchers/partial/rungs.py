"""Bookkeeping of searchers on parts of the selection set: measured networks by fidelity, and the best of them.

A rung is a fidelity with the networks measured at it. All fidelities are prefixes of one order of the examples, so that
networks on a rung were measured on the same ones, and going up a rung costs only the examples between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import moocore
import numpy as np

from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers import make_inner_searcher
from autoprune.searchers.common.queue import OnceQueue


def geometric(least: float, eta: int) -> tuple[float, ...]:
    """Fidelities from `least`, or the next above it, to 1, each `eta` times the one before."""
    if not 0 < least <= 1:
        raise ConfigError(f"expected least to be a share above 0 and at most 1, got {least!r}")
    shares = [1.0]
    while shares[0] / eta >= least * (1 - 1e-9):
        shares.insert(0, shares[0] / eta)
    return tuple(shares)


class Rungs:
    """A queue of networks to be measured at fidelities, each pair once, and the losses that came back.

    `losses[rung]` holds the losses of usable answers by levels, in order of arrival.
    """

    def __init__(self, problem: Problem, fidelities: Sequence[float]) -> None:
        problem.check_bounds()
        self.problem = problem
        self.fidelities = tuple(fidelities)
        self.losses: list[dict[Levels, tuple[float, ...]]] = [{} for _ in fidelities]
        self._queue: OnceQueue[Candidate] = OnceQueue()

    @property
    def top(self) -> int:
        """The rung of full fidelity."""
        return len(self.fidelities) - 1

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def waiting(self) -> bool:
        """Whether a candidate that was handed out lacks an answer."""
        return self._queue.waiting

    def add(self, rows: Iterable[Levels], rung: int) -> bool:
        """Queues the networks that are new to a rung, none once the search has ended; whether there were any."""
        new = [self._queue.add(Candidate(levels, self.fidelities[rung])) for levels in rows]
        return any(new)

    def take(self, n: int) -> list[Candidate]:
        """Up to n candidates from the queue, now pending; an empty queue with nothing pending ends the search."""
        return self._queue.take(n)

    def record(self, evaluations: Sequence[Evaluation]) -> list[tuple[int, Evaluation]]:
        """Records answers to handed-out candidates; returns them with their rungs, in order, usable or not."""
        answered = [e for e in evaluations if self._queue.awaits(e.candidate)]
        found = []
        for evaluation in answered:
            self._queue.answer(evaluation.candidate)
            rung = self.fidelities.index(evaluation.candidate.fidelity)
            if is_usable(self.problem, evaluation):
                self.losses[rung][evaluation.candidate.levels] = tuple(self.problem.losses([evaluation])[0].tolist())
            found.append((rung, evaluation))
        return found

    def best(self, rows: Sequence[Levels], rung: int, count: int) -> list[Levels]:
        """The `count` best of the given networks at this rung; see `best_rows`."""
        usable = [levels for levels in rows if levels in self.losses[rung]]
        losses = np.array([self.losses[rung][levels] for levels in usable])
        return [usable[index] for index in best_rows(losses, count)]

    def leaders(self, rung: int) -> list[Levels]:
        """The non-dominated networks of a rung."""
        rows = list(self.losses[rung])
        if not rows:
            return []
        ranks = moocore.pareto_rank(np.array(list(self.losses[rung].values())))
        return [levels for levels, rank in zip(rows, ranks, strict=True) if rank == 0]


def best_rows(losses: np.ndarray, count: int) -> list[int]:
    """(k,) indices of the best of (n, m) losses, front by front.

    Of the front that does not fit as a whole, the members that lie farthest apart are taken, ends first: the epsilon
    net of Schmucker et al. (2021), https://arxiv.org/abs/2106.12639.
    """
    if len(losses) <= count:
        return list(range(len(losses)))
    ranks = np.asarray(moocore.pareto_rank(losses))
    last = int(np.sort(ranks)[count - 1]) if count else -1
    whole = np.flatnonzero(ranks < last).tolist()
    return whole + _farthest(losses, np.flatnonzero(ranks == last), count - len(whole))


def _farthest(losses: np.ndarray, members: np.ndarray, count: int) -> list[int]:
    """`count` of the members, each the farthest from those chosen before; first the best in the first loss."""
    if count <= 0:
        return []
    spread = np.ptp(losses[members], axis=0)
    scaled = losses[members] / np.where(spread > 0, spread, 1.0)
    chosen = [int(scaled[:, 0].argmin())]
    nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < count:
        nearest[chosen[-1]] = -1.0  # never again
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return [int(members[index]) for index in chosen]


class ProposalSource:
    """Another searcher by name, whose proposals are measured from the lowest rung on.

    It is told the results of the first rung as if they were final, and so compares networks on the same examples.
    """

    def __init__(self, problem: Problem, seed: int, name: str, options: Mapping[str, Any] | None) -> None:
        self._searcher: Searcher = make_inner_searcher(name, problem, seed=seed, **(options or {}))

    def draw(self, n: int) -> list[Levels]:
        """Up to n new networks; none while the source waits for answers, or once it has ended."""
        return [candidate.levels for candidate in self._searcher.ask(n)]

    def tell(self, evaluation: Evaluation) -> None:
        self._searcher.tell([replace(evaluation, candidate=Candidate(evaluation.candidate.levels))])
