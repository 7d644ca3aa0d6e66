"""Bookkeeping of proposals, shared by all searchers: which were queued, are pending, or have been answered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Candidate, Levels
from autoprune.searchers.common.queue import OnceQueue

SYSTEMATIC = 65_536  # spaces up to this size are searched exhaustively


class Proposals:
    """A queue that hands out each network once, and the losses of the answered ones.

    Networks are identified by their levels: kept counts strictly decrease with the level, so levels are equal exactly
    if `space.key` is. An answer to a candidate that was never asked counts as well: it is not proposed any more.

    >>> proposals.add((0, 1))    # True: new
    >>> proposals.take(1)        # [Candidate((0, 1))], pending now
    >>> proposals.record([of_it])
    >>> proposals.losses         # {(0, 1): (0.3, 1200.0)}
    """

    def __init__(self, problem: Problem) -> None:
        problem.check_bounds()
        self.problem = problem
        self.losses: dict[Levels, tuple[float, ...]] = {}
        self._queue: OnceQueue[Levels] = OnceQueue()
        self._cursor = 0  # progress of the systematic enumeration

    def add(self, levels: Iterable[int], *, first: bool = False) -> bool:
        """Queues a network within the bounds; False if it is known already, or the search has ended.

        With `first` it goes to the front of the queue.
        """
        return self._queue.add(tuple(map(int, levels)), first=first)

    def take(self, n: int) -> list[Candidate]:
        """Up to n candidates from the queue, now pending; an empty queue with nothing pending ends the search."""
        return [Candidate(levels) for levels in self._queue.take(n)]

    def record(self, evaluations: Sequence[Evaluation]) -> list[Evaluation]:
        """Records answers at full fidelity; returns the new usable ones, in order."""
        usable = []
        for evaluation in evaluations:
            levels = evaluation.candidate.levels
            if evaluation.candidate.fidelity < 1:
                continue  # not comparable with scores on the whole selection set
            if self._queue.answer(levels) and is_usable(self.problem, evaluation):
                self.losses[levels] = tuple(float(o.loss(evaluation.values[o.name])) for o in self.problem.objectives)
                usable.append(evaluation)
        return usable

    def knows(self, levels: Levels) -> bool:
        """Whether a network was queued, handed out or told before."""
        return self._queue.knows(levels)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def waiting(self) -> bool:
        """Whether a candidate that was handed out lacks an answer."""
        return self._queue.waiting

    def remaining(self, n: int) -> list[Levels]:
        """At least the next n unknown networks, in lexicographic order, if there are any; none in a large space."""
        count = self.problem.space.count
        found: list[Levels] = []
        while len(found) < n and self._cursor < count <= SYSTEMATIC:
            block = np.arange(self._cursor, min(self._cursor + 256, count))
            rows = np.stack(np.unravel_index(block, tuple(self.problem.space.sizes)), axis=1)
            inside = rows[self.problem.feasible(rows)].tolist()
            found += [tuple(row) for row in inside if not self.knows(tuple(row))]
            self._cursor = int(block[-1]) + 1
        return found
