"""Supervises workers: hands out candidates to score, then those of the front to build, and gives an answer for each.

A worker that dies, or does not answer in time, is replaced; its candidate is tried again on another one, a few times.
All decisions are made here, in the driver: a `Site`, which runs the workers, only starts, kills and listens.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import RunFailed
from autoprune.run.executors.computing import ProcessFacts, differences
from autoprune.run.executors.parcel import Builder

OnEvent = Callable[[str, Mapping[str, Any]], None]
Check = Callable[[str, Evaluation, str], None]  # (worker, its answer, its hardware)

FAILED_STARTS = 3  # the run ends after this many failed starts in a row if no other worker runs
START_SECONDS = 600.0  # a worker that is not ready by then is given up; it may have to install an environment first
VACANT_SECONDS = 600.0  # the run ends after this time without room for any worker
FIRST_SECONDS = 3600.0  # time limit of the first evaluation, which also computes the values that all share
PATIENT_SECONDS = 60.0  # least time limit derived from earlier evaluations
TIMES_SLOWEST = 20  # such a time limit as a multiple of the slowest evaluation
BUILD_SECONDS = 86400.0  # time limit of building a network of the front
PAUSE_SECONDS = 0.5  # pause after a failed start; it doubles with each further one
LONGEST_PAUSE_SECONDS = 60.0
POLL_SECONDS = 0.25  # interval at which time limits are checked


class Worker(Protocol):
    """One worker; it starts by itself and scores or builds one candidate at a time."""

    @property
    def name(self) -> str: ...

    def submit(self, candidate: Candidate) -> None:
        """Starts to score a candidate; the answer arrives as News."""
        ...

    def build(self, candidate: Candidate) -> None:
        """Starts to build a candidate with the builder that the site has carried; the answer arrives as News."""
        ...

    def kill(self) -> None:
        """Ends the worker at once; it gives no further news."""
        ...


@dataclass(frozen=True)
class News:
    """A message about a worker: it is ready, has an answer, or died.

    Attributes:
        worker: the worker.
        kind: the kind of the message.
        evaluation: its answer.
        cause: the cause of its death.
        spent: whether the worker ran out of memory and should not be used again after this answer.
        begun: whether the worker may have started its candidate before it died. If not, the candidate is not the cause.
        facts: facts about a worker that is ready.
    """

    worker: Worker
    kind: Literal["ready", "answer", "died"]
    evaluation: Evaluation | None = None
    cause: str = ""
    spent: bool = False
    begun: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)


class Site(Protocol):
    """A place that runs workers, such as this machine or a cluster."""

    def capacity(self) -> int:
        """The number of workers that there is room for now, including running ones."""
        ...

    def start(self, name: str) -> Worker:
        """Starts a worker; news "ready" or "died" follows."""
        ...

    def wait(self, seconds: float) -> Sequence[News]:
        """Waits for news and returns it; empty when the time is over."""
        ...

    def carry(self, builder: Builder) -> None:
        """Makes a builder available to all workers, running and later ones. PluginError if it cannot be pickled."""
        ...

    def close(self) -> None:
        """Ends all workers and frees their shared resources."""
        ...


@dataclass
class _Task:
    """A candidate to score or build, with the causes of failed attempts; or one whose known values verify a worker."""

    candidate: Candidate
    proof: bool = False
    builds: bool = False
    failures: list[str] = field(default_factory=list)
    status: Literal["failed", "timeout"] = "failed"


@dataclass
class _Seat:
    """The state of one worker: its candidate, the time since it starts or works, and its hardware.

    `proved` says whether its values are verified to equal the driver's.
    """

    worker: Worker
    since: float
    ready: bool = False
    proved: bool = False
    hardware: str = ""
    task: _Task | None = None


class Pool:
    """An Evaluator over the workers of a site. It is a context manager that ends all workers on leaving.

    An exception that a worker reports is a final answer. At most `slots` candidates are taken, one per worker and a
    short queue, so that no worker idles.

    Args:
        site: runs the workers.
        attempts: how many times a candidate is started at most, if its worker dies or exceeds the timeout. Then it is
            answered as failed, with the causes.
        timeout: seconds that scoring may take. None means `TIMES_SLOWEST` times the slowest evaluation so far, at
            least `PATIENT_SECONDS`, and `FIRST_SECONDS` before the first answer. Building may take `BUILD_SECONDS`.
        on_event: receives events, such as a lost worker.
        trains: whether networks are trained. Only the times of trained networks then give the timeout, and the time for
            a share of the steps is scaled to all steps.
        own: facts on the driver (run.executors.computing). A worker with other facts ends the run. After `prove_by`, so
            does a worker that measures other values of a candidate whose values are known.
    """

    def __init__(
        self,
        site: Site,
        *,
        attempts: int,
        timeout: float | None,
        on_event: OnEvent,
        trains: bool = False,
        own: ProcessFacts | None = None,
    ) -> None:
        self._site = site
        self._trains = trains
        self._own = own
        self._known: Candidate | None = None  # the candidate that verifies workers
        self._check: Check = lambda worker, answer, hardware: None
        self._attempts = attempts
        self._timeout = timeout
        self._on_event = on_event
        self._seats: dict[str, _Seat] = {}
        self._idle: deque[_Seat] = deque()
        self._queue: deque[_Task] = deque()
        self._finished: deque[Evaluation] = deque()
        self._capacity = site.capacity()
        self._started = 0
        self._failed_starts = 0  # since a worker last became ready
        self._start_after = 0.0
        self._slowest = 0.0
        self._vacant_since: float | None = None
        self._look_at = 0.0  # the time of the next check of limits

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def slots(self) -> int:
        """The number of candidates taken: one for each worker that there is room for, and an eighth more to wait."""
        return max(1, self._capacity) + math.ceil(self._capacity / 8)

    @property
    def alive(self) -> int:
        """The number of workers that are ready."""
        return sum(seat.ready for seat in self._seats.values())

    def submit(self, candidate: Candidate) -> None:
        self._queue.append(_Task(candidate))
        self._hand_out()

    def carry(self, builder: Builder) -> None:
        """Sends a builder to the workers, which can `build` networks then. PluginError if it cannot be pickled."""
        self._site.carry(builder)

    def build(self, candidate: Candidate) -> None:
        """Starts to build a candidate; those that are submitted first start first, whatever their number."""
        self._queue.append(_Task(candidate, builds=True))
        self._hand_out()

    def close(self) -> None:
        """Ends all workers."""
        self._site.close()

    def collect(self) -> Evaluation:
        while not self._finished:
            self._advance()
        return self._finished.popleft()

    def wait_ready(self) -> None:
        """Waits until one worker is ready and has imported everything it needs. RunFailed if none gets ready."""
        while not self.alive:
            self._advance()

    def prove_by(self, answer: Evaluation, check: Check) -> None:
        """Makes every worker score a known candidate before any other, and verifies its answer.

        Args:
            answer: an answer of a worker, whose candidate is scored.
            check: receives a worker's name, its answer and its hardware, and raises if the answer is wrong.
        """
        seat = self._seats.get(answer.worker)
        check(answer.worker, answer, seat.hardware if seat else "")
        if seat:
            seat.proved = True
        self._known, self._check = answer.candidate, check

    def _advance(self) -> None:
        self._hire()
        for news in self._site.wait(max(0.0, self._look_at - time.monotonic())):
            self._hear(news)
        if time.monotonic() >= self._look_at:
            self._enforce_limits()
            self._look_at = time.monotonic() + POLL_SECONDS
        self._hand_out()

    def _hire(self) -> None:
        """Starts workers while there is room, with growing pauses while they fail to start."""
        self._capacity = self._site.capacity()
        self._check_vacancy()
        self._dismiss()
        if time.monotonic() < self._start_after:
            return
        while len(self._seats) < self._capacity:
            name = f"worker-{self._started}"
            self._started += 1
            self._seats[name] = _Seat(self._site.start(name), time.monotonic())
            self._on_event("worker_started", {"worker": name})

    def _dismiss(self) -> None:
        """Gives up the newest starting workers when there is no longer room for them."""
        surplus = max(0, len(self._seats) - self._capacity)
        starting = [seat for seat in self._seats.values() if not seat.ready]
        for seat in starting[::-1][:surplus]:
            seat.worker.kill()
            del self._seats[seat.worker.name]
            self._on_event("worker_lost", {"worker": seat.worker.name, "cause": "there is no room for it any more"})

    def _check_vacancy(self) -> None:
        if self._capacity > 0:
            self._vacant_since = None
            return
        now = time.monotonic()
        self._vacant_since = self._vacant_since or now
        if now - self._vacant_since > VACANT_SECONDS:
            raise RunFailed(
                f"there was no room for any worker during {VACANT_SECONDS:.0f} s. "
                "No measurement is lost; resume when the cluster has nodes again."
            )

    def _hand_out(self) -> None:
        while self._queue and self._idle:
            seat = self._idle.popleft()
            if seat.worker.name in self._seats:  # else it died while it was idle
                known = None if seat.proved else self._known
                task = self._queue.popleft() if known is None else _Task(known, proof=True)
                seat.task, seat.since = task, time.monotonic()
                start = seat.worker.build if task.builds else seat.worker.submit
                start(task.candidate)

    def _limit(self, seat: _Seat) -> float:
        """The time at which a worker is given up, on the monotonic clock."""
        if not seat.ready:
            return seat.since + START_SECONDS
        return seat.since + self._seconds_allowed(seat.task) if seat.task else math.inf

    def _seconds_allowed(self, task: _Task) -> float:
        if task.builds:
            return BUILD_SECONDS
        seen = max(PATIENT_SECONDS, TIMES_SLOWEST * self._slowest) if self._slowest else FIRST_SECONDS
        return self._timeout or seen

    def _hear(self, news: News) -> None:
        seat = self._seats.get(news.worker.name)
        if seat is None:  # it was given up before
            return
        self._compare(news)
        if news.kind == "ready":
            seat.ready, seat.hardware = True, news.facts.get("hardware", "")
            if self._known is None:
                self._failed_starts = 0
            self._idle.append(seat)
            told = {name: fact for name, fact in news.facts.items() if name != "computing"}
            self._on_event("worker_ready", {"worker": seat.worker.name, **told})
        elif news.kind == "died":
            self._lose(seat, news.cause, "failed", begun=news.begun)
        elif news.evaluation is not None and seat.task is not None:
            self._take(seat, seat.task, news.evaluation, spent=news.spent)

    def _compare(self, news: News) -> None:
        """Raises RunFailed for a worker whose facts differ from the driver's."""
        if self._own is None or not ("computing" in news.facts or news.kind == "ready"):
            return
        theirs = news.facts.get("computing", {})
        own = self._own if news.kind == "ready" else {name: self._own[name] for name in theirs if name in self._own}
        if found := differences(own, theirs):
            raise RunFailed(
                f"{news.worker.name} on {news.facts.get('host')} differs from this process: {'; '.join(found)}. "
                "Its values would differ as well. Install the same software everywhere, or send it with "
                "run.runtime_env."
            )

    def _take(self, seat: _Seat, task: _Task, evaluation: Evaluation, *, spent: bool) -> None:
        if spent:
            seat.worker.kill()
            self._lose(seat, evaluation.cause, "failed")
            return
        seat.task = None
        self._idle.append(seat)
        if task.proof:
            self._check(seat.worker.name, evaluation, seat.hardware)
            seat.proved, self._failed_starts = True, 0
            return
        if task.builds:
            told = {"worker": seat.worker.name, "levels": list(task.candidate.levels), "status": evaluation.status}
            self._on_event("built", {**told, "seconds": round(evaluation.seconds, 4)})
        else:
            self._slowest = max(self._slowest, self._seconds_in_full(seat, evaluation))
        self._finished.append(evaluation)

    def _seconds_in_full(self, seat: _Seat, evaluation: Evaluation) -> float:
        """The time of an evaluation, scaled to all steps if networks are trained; 0 if it tells nothing of others."""
        seconds = time.monotonic() - seat.since
        if not self._trains:
            return seconds
        return seconds / evaluation.candidate.fidelity if evaluation.steps else 0.0

    def _enforce_limits(self) -> None:
        now = time.monotonic()
        for seat in [seat for seat in self._seats.values() if self._limit(seat) <= now]:
            seat.worker.kill()
            did = "did not answer" if seat.ready else "was not ready"
            self._lose(seat, f"{did} within {now - seat.since:.0f} s", "timeout")

    def _lose(self, seat: _Seat, cause: str, status: Literal["failed", "timeout"], *, begun: bool = True) -> None:
        """Removes a worker: its candidate goes back to the queue, or is answered as failed after its last attempt."""
        del self._seats[seat.worker.name]
        self._on_event("worker_lost", {"worker": seat.worker.name, "cause": cause})
        proving = seat.task is not None and seat.task.proof
        if not seat.ready or proving:
            self._note_failed_start(cause)
        if seat.task is None or proving:
            return
        task = seat.task
        if not begun:
            self._queue.appendleft(task)
            return
        task.failures.append(f"{seat.worker.name} {cause}")
        task.status = status
        if len(task.failures) < self._attempts:
            self._queue.appendleft(task)
            self._on_event("retry", {"levels": list(task.candidate.levels), "attempts": len(task.failures)})
            return
        why = f"no answer in {self._attempts} attempt{'' if self._attempts == 1 else 's'}: {'; '.join(task.failures)}"
        self._finished.append(Evaluation(task.candidate, {}, task.status, why, worker=seat.worker.name))

    def _note_failed_start(self, cause: str) -> None:
        self._failed_starts += 1
        count = self._failed_starts
        at_work = [seat for seat in self._seats.values() if seat.ready and (seat.proved or self._known is None)]
        if count >= FAILED_STARTS and not at_work:
            raise RunFailed(f"{count} workers in a row could not start; the last one {cause}")
        self._start_after = time.monotonic() + min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2.0 ** min(count - 1, 10))
