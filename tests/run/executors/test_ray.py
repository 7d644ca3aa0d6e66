"""Workers as Ray actors on a cluster: same bits, every candidate answered once, whatever dies."""

import functools
import os
import signal
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, RunFailed
from autoprune.run import search
from autoprune.run.executors.evaluator import open_evaluator
from autoprune.run.records.events import Events
from autoprune.run.session.job import Executor, silent
from autoprune.run.session.session import open_session
from autoprune.testing import answers

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300, method="thread")]

PARCELS = Path(tempfile.gettempdir())
PREFIX = f"autoprune-{os.getuid()}-"

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def session(job):
    return open_session(job(), silent)


@pytest.fixture
def executor(cluster):
    return Executor("ray", address=cluster.address)


@pytest.fixture
def farm(session, executor):
    """Opens an evaluator; what `act` does in the worker happens before a candidate is scored."""

    @contextmanager
    def open_farm(act=None, **changes):
        events = Heard()
        scorer = replace(session.scorer, also={"act": act} if act else {})
        with open_evaluator(replace(executor, **changes), scorer, events.add) as evaluator:
            yield evaluator, events

    return open_farm


class Heard(Events):
    """Keeps what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def add(self, event, facts):
        self.told.append((event, dict(facts)))

    def of(self, event):
        return [facts for name, facts in self.told if name == event]


def some(session, count, seed=0):
    """Different candidates."""
    rng = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        levels = tuple(int(level) for level in rng.integers(0, session.space.sizes))
        found[levels] = Candidate(levels)
    return list(found.values())


def evaluate(evaluator, candidates, on_answer=lambda number, answer: None):
    """All answers by candidate, each expected once."""
    found = {}
    for answer in answers(evaluator, candidates):
        assert answer.candidate not in found
        found[answer.candidate] = answer
        on_answer(len(found), answer)
    return found


def until_full(evaluator, candidate):
    """Returns when every lost actor is replaced, which is seen to while answers are waited for."""
    while evaluator.alive < 2:
        evaluator.submit(candidate)
        assert evaluator.collect().ok


def doom(session, candidate, act, log=None):
    """Does `act` in the worker that scores the candidate, and notes that it came so far."""
    return functools.partial(_act_on, session.space.key(candidate), act, log)


def _act_on(doomed, act, log, subnet):
    if tuple(subnet.counts.values()) == doomed:
        if log is not None:
            with open(log, "a") as file:
                file.write("begun\n")
        act()
    return 0.0


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(1000)


def grab():
    raise MemoryError("no room")


def slowly(counts):
    time.sleep(0.03)
    return 0.0


def test_a_candidate_has_the_same_bits_on_an_actor_as_in_this_process(session, farm):
    candidates = some(session, 20)
    with farm() as (evaluator, _):
        found = evaluate(evaluator, candidates)
    assert {c: a.values for c, a in found.items()} == {c: session.scorer.score(c).values for c in candidates}
    assert {a.worker for a in found.values()} <= {"worker-0", "worker-1"}


def test_a_deterministic_run_on_actors_has_the_front_of_a_serial_one(job, executor, tmp_path):
    search(job(deterministic=True), tmp_path / "serial")
    search(job(deterministic=True, executor=executor), tmp_path / "ray")
    assert (tmp_path / "ray" / "front.csv").read_bytes() == (tmp_path / "serial" / "front.csv").read_bytes()


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (2, 2)])
def test_an_actor_has_as_many_threads_as_whole_cpus_and_says_so(farm, cpus, threads):
    with farm(cpus=cpus, workers=1) as (_, events):
        (ready,) = events.of("worker_ready")
    assert (ready["threads"], ready["interop_threads"]) == (threads, 1)


def test_a_fraction_of_a_cpu_makes_room_for_more_actors(session, farm):
    with farm(cpus=0.5) as (evaluator, events):
        evaluate(evaluator, some(session, 30))
    assert len(events.of("worker_started")) == 4


def test_five_kills_in_200_evaluations_lose_and_double_nothing(session, farm):
    candidates = some(session, 200)
    with farm(slowly) as (evaluator, events):

        def kill_one(number, answer):
            if number in (20, 60, 100, 140, 180):
                gone = {facts["worker"] for facts in events.of("worker_lost")}
                living = [facts for facts in events.of("worker_ready") if facts["worker"] not in gone]
                busy = [facts for facts in living if facts["worker"] != answer.worker] or living
                os.kill(busy[-1]["pid"], signal.SIGKILL)

        begun = time.perf_counter()
        found = evaluate(evaluator, candidates, kill_one)
        seconds = time.perf_counter() - begun
        lost = {facts["worker"] for facts in events.of("worker_lost")}
    assert {c: a.values["accuracy"] for c, a in found.items()} == {
        c: session.scorer.score(c).values["accuracy"] for c in candidates
    }
    assert len(lost) == 5
    retries = events.of("retry")
    assert max((r["attempts"] for r in retries), default=0) <= 2
    print(f"200 answers, 5 kills, {len(retries)} begun again, {seconds:.1f} s")


def test_a_candidate_that_kills_its_workers_is_given_up_and_the_others_are_answered(session, farm, tmp_path):
    candidates = some(session, 40)
    log = tmp_path / "log"
    with farm(doom(session, candidates[10], die, log)) as (evaluator, events):
        found = evaluate(evaluator, candidates)
        until_full(evaluator, candidates[0])
    poison = found.pop(candidates[10])
    assert poison.status == "failed"
    assert "no answer in 3 attempts: worker-" in poison.cause
    assert "ActorDiedError" in poison.cause
    assert log.read_text().splitlines() == ["begun"] * 3
    assert all(answer.ok for answer in found.values())
    assert len(events.of("worker_lost")) == 3


def test_a_hang_is_ended_after_the_timeout_and_its_place_used_again(session, farm):
    candidates = some(session, 30)
    begun = time.perf_counter()
    with farm(doom(session, candidates[5], hang), timeout=2, attempts=2) as (evaluator, _):
        found = evaluate(evaluator, candidates)
        until_full(evaluator, candidates[0])
    assert time.perf_counter() - begun < 60
    assert found[candidates[5]].status == "timeout"
    assert "did not answer within 2 s" in found[candidates[5]].cause
    assert sum(answer.ok for answer in found.values()) == 29


def test_an_actor_out_of_memory_is_replaced_and_the_candidate_tried_elsewhere(session, farm):
    candidates = some(session, 10)
    with farm(doom(session, candidates[3], grab)) as (evaluator, events):
        found = evaluate(evaluator, candidates)
    assert found[candidates[3]].status == "failed"
    assert found[candidates[3]].cause.count("MemoryError: no room") == 3
    assert len(events.of("worker_lost")) == 3
    assert sum(answer.ok for answer in found.values()) == 9


def test_an_actor_that_died_idle_costs_its_next_candidate_nothing(session, farm):
    with farm(attempts=1) as (evaluator, events):
        evaluate(evaluator, some(session, 20))
        killed = events.of("worker_ready")  # on a busy machine one may have done all before the other was ready
        for ready in killed:
            os.kill(ready["pid"], signal.SIGKILL)
        time.sleep(0.5)
        found = evaluate(evaluator, some(session, 20, seed=1))
    assert all(answer.ok for answer in found.values())
    assert events.of("retry") == []
    assert len(events.of("worker_lost")) == len(killed) > 0


def test_resources_that_no_node_has_are_refused_at_once_with_what_there_is(farm):
    begun = time.perf_counter()
    with pytest.raises(ConfigError, match=r"got \{cpus: 3, gpus: 1\} for a worker. The cluster has .*: 2 cpus, 0 gpus"):
        farm(cpus=3, gpus=1).__enter__()
    with pytest.raises(ConfigError, match=r"memory_gib: 1000.* GiB\. Ask for less, or add a node first"):
        farm(memory_bytes=1000 << 30).__enter__()
    assert time.perf_counter() - begun < 10


def test_an_address_without_a_cluster_is_refused(farm):
    begun = time.perf_counter()
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(ConfigError, match=f"expected a Ray cluster at '{address}', found none: .*refused"):
            farm(address=address).__enter__()
    assert time.perf_counter() - begun < 10


def test_auto_at_an_address_without_a_cluster_is_refused(farm, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ConfigError, match="expected a Ray cluster at 'auto', found none: .*refused"):
        farm(address="auto").__enter__()


class Fragile:
    """Cannot be made again from its pickled form."""

    def __call__(self, counts):
        return 0.0

    def __reduce__(self):
        return _explode, ()


def _explode():
    raise ImportError("No module named 'only_here'")


def test_a_plugin_that_is_not_there_on_the_workers_ends_the_run_before_its_search(farm):
    with pytest.raises(RunFailed, match="No module named 'only_here'") as failed:
        farm(Fragile()).__enter__()
    assert "run.runtime_env" in failed.value.__notes__[0]


def test_actors_are_seen_by_name_while_they_live(farm, cluster):
    ray = pytest.importorskip("ray")
    with farm(workers=1):
        names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert len(names) == 1
    assert names[0].startswith("autoprune-")
    assert names[0].endswith("-worker-0")


def test_the_parcel_is_removed_when_the_evaluator_is_closed(farm):
    before = parcels()
    with farm():
        assert len(parcels() - before) == 1
    assert parcels() == before


def test_what_killed_runs_left_is_swept_after_a_day(farm):
    old, young = (PARCELS / f"{PREFIX}{age}.parcel" for age in ("old", "young"))
    old.touch()
    young.touch()
    os.utime(old, (0, time.time() - 90_000))
    try:
        with farm():
            assert not old.exists()
            assert young.exists()
    finally:
        young.unlink()


def parcels():
    """This user's files of scorers, in the folder for temporary files that the workers share with us."""
    return set(PARCELS.glob(f"{PREFIX}*.parcel"))
