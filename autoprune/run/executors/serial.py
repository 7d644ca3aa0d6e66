"""The executor for one process: evaluates a candidate when its answer is collected."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate


class SerialEvaluator:
    """An evaluator with one slot, in this process."""

    slots = 1

    def __init__(self, score: Callable[[Candidate], Evaluation]) -> None:
        self._score = score
        self._queue: deque[Candidate] = deque()

    def submit(self, candidate: Candidate) -> None:
        self._queue.append(candidate)

    def collect(self) -> Evaluation:
        return self._score(self._queue.popleft())
