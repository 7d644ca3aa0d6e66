"""Conditions that end a search before its budget is spent: a time limit, a target, or stagnation."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume, nondominated
from autoprune.core.objective import Objective
from autoprune.errors import ConfigError
from autoprune.run.records.checks import Record
from autoprune.run.session.job import Stop

LEAST_GROWTH = 1e-3  # a front whose hypervolume grows by a smaller share stagnates


class Stopping:
    """Follows the evaluations of a search; `reason` returns why it should end, if it should.

    `dense` are the dense costs; bounds up to 1 are shares of them. The reference point of the hypervolume has the worst
    losses of the first `stagnation` evaluations. `used` are the seconds that the search took before it was resumed.
    """

    def __init__(
        self, stop: Stop, objectives: Sequence[Objective], dense: Mapping[str, float], used: float = 0.0
    ) -> None:
        self._stop = stop
        self._objectives = tuple(objectives)
        self._target = [bound.absolute(dense) for bound in stop.target]
        self._began = time.monotonic() - used
        self._read = 0  # number of evaluations read
        self._seen = 0  # number of those at full fidelity
        self._reached = False
        self._losses: list[list[float]] = []  # of the front; of all evaluations until there is a reference
        self._reference: list[float] = []
        self._volume = 0.0
        self._grown_at = 0  # value of `_seen` when the front last grew

    @property
    def seconds(self) -> float:
        """The seconds that the search has taken so far, before a resume too."""
        return time.monotonic() - self._began

    def reason(self, told: Sequence[Evaluation]) -> str:
        """The reason to end, from all evaluations so far; "" to continue."""
        new, self._read = told[self._read :], len(told)
        for evaluation in (e for e in new if e.candidate.fidelity == 1):
            self._seen += 1
            self._learn(evaluation)
        if self._reached:
            return f"a network reached the target {', '.join(map(str, self._stop.target))}"
        if self._stop.seconds is not None and self.seconds >= self._stop.seconds:
            return f"{self._stop.seconds:g} seconds are over"
        if self._stop.stagnation is not None and self._seen - self._grown_at >= self._stop.stagnation:
            return f"the front has not grown by {LEAST_GROWTH:.1%} over the last {self._stop.stagnation} evaluations"
        return ""

    def _learn(self, evaluation: Evaluation) -> None:
        if not evaluation.ok:
            return
        values = evaluation.values
        self._reached |= bool(self._target) and all(b.admits(_value(values, b.name)) for b in self._target)
        if self._stop.stagnation is not None:
            self._losses.append([o.loss(values[o.name]) for o in self._objectives])
            self._follow_front(self._stop.stagnation)

    def _follow_front(self, wait: int) -> None:
        if not self._reference:
            self._grown_at = self._seen
            if self._seen < wait:
                return
            self._reference = np.max(self._losses, axis=0).tolist()
        front = np.array(self._losses)[nondominated(np.array(self._losses))]
        self._losses = front.tolist()
        volume = hypervolume(front, self._reference)
        if volume > self._volume * (1 + LEAST_GROWTH):
            self._volume, self._grown_at = volume, self._seen


def seconds_used(records: Sequence[Record]) -> float:
    """The seconds that a search took, from the records of its journal after the first one.

    A search that ends, by an error or a signal too, writes them down. After one that was killed, those of its busiest
    worker are added, the least that it can have taken. Evaluations that a fork took from another run cost nothing.
    """
    used, asked, known = 0.0, False, set[tuple[tuple[int, ...], float]]()
    busy = defaultdict[str, float](float)  # seconds by worker since the search last ended
    for record in records:
        asked |= record["kind"] == "ask"
        if record["kind"] == "end":
            used = record.get("seconds", used + max(busy.values(), default=0.0))
            busy.clear()
        elif "evaluation" in record:
            evaluation = record["evaluation"]
            network = tuple(evaluation["levels"]), evaluation["fidelity"]
            if asked and network not in known:
                busy[evaluation["worker"]] += evaluation["seconds"]
            known.add(network)
    return float(used + max(busy.values(), default=0.0))


def _value(values: Mapping[str, float], name: str) -> float:
    if name not in values:
        raise ConfigError(f"stop.target: expected a bound on one of {sorted(values)}, got one on {name!r}")
    return values[name]
