"""Supervision: whatever workers do, every candidate is answered once, in bounded time, and the pool stays full.

Workers are scripted and so is the clock, so that hours pass in no time; test_process_faults.py has real ones.
"""

import heapq
import itertools
from collections import Counter

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import RunFailed
from autoprune.run.executors import pool as pools
from autoprune.run.executors.pool import (
    FAILED_STARTS,
    FIRST_SECONDS,
    LONGEST_PAUSE_SECONDS,
    PATIENT_SECONDS,
    START_SECONDS,
    TIMES_SLOWEST,
    VACANT_SECONDS,
    News,
    Pool,
)
from autoprune.testing import answers

CANDIDATES = [Candidate((number,)) for number in range(200)]
POISON = CANDIDATES[7]


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


class Scripted:
    """A worker that does with a candidate what its site's plan says: (what, after how many seconds)."""

    def __init__(self, site, name):
        self.site, self.name = site, name
        self.killed = False

    def submit(self, candidate):
        assert self.name not in self.site.working, "a worker scores one candidate at a time"
        self.site.working[self.name] = candidate
        self.site.begun[candidate] += 1
        what, seconds = self.site.plan(self, candidate)
        if what in ("answer", "trained"):
            steps = 9 if what == "trained" else 0
            answer = Evaluation(candidate, {"loss": float(candidate.levels[0])}, steps=steps)
            self.site.later(seconds, News(self, "answer", answer))
        elif what == "spent":
            failed = Evaluation(candidate, {}, "failed", "MemoryError: ")
            self.site.later(seconds, News(self, "answer", failed, spent=True))
        elif what == "die":
            self.site.later(seconds, News(self, "died", cause="was killed by SIGKILL"))

    def kill(self):
        self.killed = True
        self.site.alive.discard(self.name)
        self.site.working.pop(self.name, None)


class Site:
    """Workers that start in a second; `starts(number)` says whether one does, `rooms(now)` how many there may be."""

    def __init__(self, clock, plan=lambda worker, candidate: ("answer", 1.0), *, rooms=lambda now: 2, starts=None):
        self.clock, self.plan, self.rooms = clock, plan, rooms
        self.starts = starts or (lambda number: ("ready", 1.0))
        self.begun, self.working, self.alive = Counter(), {}, set()
        self.started = []  # when
        self.closed = False
        self._later, self._order = [], itertools.count()

    def later(self, seconds, news):
        heapq.heappush(self._later, (self.clock.now + seconds, next(self._order), news))

    def capacity(self):
        return self.rooms(self.clock.now - Clock.now)

    def start(self, name):
        worker = Scripted(self, name)
        what, seconds = self.starts(len(self.started))
        self.started.append(self.clock.now - Clock.now)
        self.alive.add(name)
        if what != "never":
            self.later(seconds, News(worker, what, cause="cannot start: no luck" if what == "died" else ""))
        return worker

    def wait(self, seconds):
        """All that happens next at one time; also what is heard of workers that were killed in the meantime."""
        until = self.clock.now + seconds
        if not self._later or self._later[0][0] > until:
            self.clock.now = until
            return []
        self.clock.now = max(self.clock.now, self._later[0][0])
        heard = []
        while self._later and self._later[0][0] <= self.clock.now:
            heard.append(self._happen(heapq.heappop(self._later)[2]))
        return heard

    def _happen(self, news):
        if not news.worker.killed:
            if news.kind != "ready":
                self.working.pop(news.worker.name, None)
            if news.kind == "died":
                self.alive.discard(news.worker.name)
        return news

    def close(self):
        self.closed = True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pools, "time", clock)
    return clock


@pytest.fixture
def events():
    return []


@pytest.fixture
def pool(events):
    def make(site, *, attempts=3, timeout=None, trains=False):
        def note(name, facts):
            events.append((name, facts))

        return Pool(site, attempts=attempts, timeout=timeout, on_event=note, trains=trains)

    return make


def answered(pool, candidates=CANDIDATES):
    return list(answers(pool, candidates))


def seconds(clock):
    return clock.now - Clock.now


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_candidate_is_answered_once_with_its_own_value(clock, pool, count):
    rng = np.random.default_rng(count)
    site = Site(clock, lambda worker, candidate: ("answer", rng.exponential()), rooms=lambda now: count)
    finished = answered(pool(site))
    assert sorted(e.candidate for e in finished) == CANDIDATES
    assert all(e.values["loss"] == e.candidate.levels[0] for e in finished)
    assert set(site.begun.values()) == {1}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_workers_work_without_a_pause(clock, pool, count):
    site = Site(clock, rooms=lambda now: count)
    answered(pool(site))
    assert seconds(clock) == 1 + np.ceil(200 / count)


def test_a_candidate_whose_worker_dies_is_tried_again_and_costs_the_others_nothing(clock, pool, events):
    deaths = iter([30, 60, 90, 120, 150])
    following = [next(deaths)]

    def plan(worker, candidate):
        if site.begun.total() == following[0]:
            following[0] = next(deaths, None)
            return "die", 0.5
        return "answer", 1.0

    site = Site(clock, plan)
    finished = answered(pool(site))
    assert sorted(e.candidate for e in finished) == CANDIDATES
    assert all(e.ok for e in finished)
    assert max(site.begun.values()) == 2
    assert site.begun.total() == 205
    assert [name for name, _ in events].count("retry") == [name for name, _ in events].count("worker_lost") == 5
    assert len(site.alive) == 2


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_candidate_that_kills_its_workers_is_answered_as_failed_with_every_cause(clock, pool, attempts):
    site = Site(clock, lambda worker, candidate: ("die" if candidate == POISON else "answer", 1.0))
    finished = answered(pool(site, attempts=attempts))
    failed = [e for e in finished if not e.ok]
    assert [e.candidate for e in failed] == [POISON]
    assert failed[0].status == "failed"
    assert failed[0].cause.startswith(f"no answer in {attempts} attempt")
    assert failed[0].cause.count("was killed by SIGKILL") == attempts
    assert site.begun[POISON] == attempts
    assert len(finished) == 200
    assert len(site.alive) == 2


def test_a_candidate_that_hangs_costs_its_time_limit_for_every_attempt_and_no_more(clock, pool):
    site = Site(clock, lambda worker, candidate: ("hang" if candidate == POISON else "answer", 1.0))
    finished = answered(pool(site, timeout=5), CANDIDATES[7:8])
    assert finished[0].status == "timeout"
    assert finished[0].cause.count("did not answer within 5 s") == 3
    assert seconds(clock) == 1 + 3 * 5  # at no time is it without a worker that is ready


def test_a_candidate_given_up_on_one_worker_goes_to_an_idle_one_also_when_nothing_else_happens(clock, pool):
    site = Site(clock, lambda worker, c: ("hang" if site.begun[c] == 1 else "answer", 1.0))
    site.rooms = lambda now: 2 if now < 3 else 1  # no other worker is started in its place
    assert answered(pool(site, timeout=5), CANDIDATES[:1])[0].ok
    assert len(site.started) == 2


def test_an_answer_just_within_the_limit_counts(clock, pool):
    site = Site(clock, lambda worker, candidate: ("answer", 4.999))
    assert all(e.ok for e in answered(pool(site, timeout=5), CANDIDATES[:10]))


@pytest.mark.parametrize(("slowest", "limit"), [(0.2, PATIENT_SECONDS), (10.0, TIMES_SLOWEST * 10.0)])
def test_without_a_time_limit_it_follows_the_slowest_evaluation(clock, pool, slowest, limit):
    site = Site(clock, lambda worker, candidate: ("hang" if candidate == POISON else "answer", slowest))
    finished = answered(pool(site, attempts=1), CANDIDATES[:8])
    assert finished[-1].cause.endswith(f"did not answer within {limit:.0f} s")


def test_where_networks_are_trained_the_limit_follows_those_and_what_all_steps_may_take(clock, pool):
    dense, short, long = CANDIDATES[0], Candidate((1,), 0.25), POISON
    site = Site(clock, lambda worker, c: ("answer", 1) if c == dense else ("trained" if c == short else "hang", 1000))
    running = pool(site, attempts=1, trains=True)
    assert [e.status for c in (dense, short) for e in answered(running, [c])] == ["ok", "ok"]
    (finished,) = answered(running, [long])
    assert finished.cause.endswith(f"did not answer within {TIMES_SLOWEST * 4 * 1000:.0f} s")


def test_a_first_evaluation_may_take_as_long_as_nothing_is_known(clock, pool):
    site = Site(clock, lambda worker, candidate: ("answer", 0.9 * FIRST_SECONDS))
    assert answered(pool(site), CANDIDATES[:1])[0].ok
    hanging = Site(clock, lambda worker, candidate: ("hang", 0))
    finished = answered(pool(hanging, attempts=1), CANDIDATES[:1])
    assert finished[0].cause.endswith(f"did not answer within {FIRST_SECONDS:.0f} s")


def test_a_worker_out_of_memory_is_replaced_and_its_candidate_tried_on_another(clock, pool):
    once = iter([True])
    site = Site(
        clock, lambda worker, candidate: ("spent" if candidate == POISON and next(once, False) else "answer", 1)
    )
    finished = answered(pool(site), CANDIDATES[:20])
    assert all(e.ok for e in finished)
    assert site.begun[POISON] == 2
    assert len(site.alive) == 2
    assert len(site.started) == 3


def test_a_candidate_that_always_runs_out_of_memory_fails_with_that_cause(clock, pool):
    site = Site(clock, lambda worker, candidate: ("spent", 1.0))
    assert answered(pool(site), [POISON])[0].cause.count("MemoryError") == 3


def test_workers_that_never_start_end_the_run_with_the_cause(clock, pool):
    site = Site(clock, starts=lambda number: ("died", 1.0))
    with pytest.raises(RunFailed, match="3 workers in a row could not start; the last one cannot start: no luck"):
        pool(site).wait_ready()
    assert len(site.started) <= FAILED_STARTS + 1


def test_workers_that_never_get_ready_end_the_run_in_bounded_time(clock, pool):
    site = Site(clock, starts=lambda number: ("never", 0))
    with pytest.raises(RunFailed, match=f"was not ready within {START_SECONDS:.0f} s"):
        pool(site).wait_ready()
    assert seconds(clock) < 3 * START_SECONDS


def test_a_failed_start_or_two_is_got_over(clock, pool):
    site = Site(clock, starts=lambda number: ("died" if number < FAILED_STARTS - 1 else "ready", 1.0))
    assert all(e.ok for e in answered(pool(site), CANDIDATES[:10]))
    assert len(site.alive) == 2


def test_while_one_worker_works_others_that_do_not_start_are_tried_less_and_less_often(clock, pool):
    site = Site(clock, lambda worker, c: ("answer", 3600.0), starts=lambda n: ("ready" if n == 0 else "died", 0.0))
    assert all(e.ok for e in answered(pool(site, timeout=1e6), CANDIDATES[:30]))  # thirty hours
    pauses = np.diff(site.started[1:])
    assert 1000 < len(pauses) < 2000
    assert (np.diff(pauses) >= 0).all()
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS, abs=1.0)


@pytest.mark.parametrize(("workers", "slots"), [(1, 2), (2, 3), (8, 9), (9, 11), (64, 72)])
def test_a_few_candidates_more_than_there_are_workers_are_taken(clock, pool, workers, slots):
    assert pool(Site(clock, rooms=lambda now: workers)).slots == slots


def test_news_of_a_worker_that_was_given_up_is_ignored(clock, pool):
    site = Site(clock, lambda worker, candidate: ("answer", 6.0 if site.begun[candidate] == 1 else 1.0))
    finished = answered(pool(site, timeout=5), CANDIDATES[:6])  # each first answer comes a second late
    assert sorted(e.candidate for e in finished) == CANDIDATES[:6]
    assert set(site.begun.values()) == {2}


def test_room_for_more_workers_is_used_when_it_appears(clock, pool):
    site = Site(clock, rooms=lambda now: 2 if now < 50 else 10)
    answered(pool(site))
    assert len(site.alive) == 10
    assert seconds(clock) < 55 + (200 - 2 * 50) / 10 + 5


def test_where_room_vanishes_with_its_workers_the_rest_goes_on(clock, pool):
    def plan(worker, candidate):
        gone = seconds(clock) >= 20 and len(site.alive) > 2
        return ("die", 0.0) if gone else ("answer", 1.0)

    site = Site(clock, plan, rooms=lambda now: 8 if now < 20 else 2)
    finished = answered(pool(site, attempts=10))
    assert sorted(e.candidate for e in finished) == CANDIDATES
    assert all(e.ok for e in finished)
    assert len(site.alive) == 2


def test_a_while_without_any_room_is_waited_out(clock, pool):
    site = Site(clock, rooms=lambda now: 0 if now < 0.9 * VACANT_SECONDS else 2)
    assert all(e.ok for e in answered(pool(site), CANDIDATES[:10]))


def test_without_room_for_too_long_the_run_ends(clock, pool):
    with pytest.raises(RunFailed, match="there was no room for any worker during 600 s"):
        answered(pool(Site(clock, rooms=lambda now: 0)))
    assert seconds(clock) < VACANT_SECONDS + 5


def test_leaving_the_pool_closes_the_site_also_after_an_error(clock, pool):
    site = Site(clock)
    with pytest.raises(KeyError), pool(site):
        raise KeyError
    assert site.closed


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_candidate_has_one_answer_and_the_pool_is_full_in_the_end(clock, pool, seed):
    rng = np.random.default_rng(seed)

    def plan(worker, candidate):
        what = rng.choice(["answer", "die", "hang", "spent"], p=[0.85, 0.05, 0.05, 0.05])
        return what, rng.exponential()

    count = int(rng.integers(1, 9))
    site = Site(clock, plan, rooms=lambda now: count, starts=lambda n: ("died" if rng.random() < 0.1 else "ready", 1))
    finished = answered(pool(site, timeout=10))
    assert sorted(e.candidate for e in finished) == CANDIDATES
    assert max(site.begun.values()) <= 3
    assert all(e.values["loss"] == e.candidate.levels[0] if e.ok else "no answer in 3" in e.cause for e in finished)
    assert not site.working
