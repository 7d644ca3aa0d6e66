"""Worker processes that are killed, and user code that kills, hangs, leaks, prints and lies: contained and named.

Evaluations are of the tiny network of conftest.py in real processes; what they should be is what this process measures.
"""

import os
import resource
import signal
import tempfile
import textwrap
import threading
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import pytest
from commands import runs, wait_until

from autoprune.core.space import Candidate
from autoprune.errors import PluginError, RunFailed
from autoprune.plugins import load_plugin
from autoprune.run import search
from autoprune.run.executors.evaluator import open_evaluator
from autoprune.run.executors.processes import LOG_BYTES, PREFIX, Processes
from autoprune.run.session.job import Executor
from autoprune.run.session.session import open_session
from autoprune.testing import answers

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

LIMIT = 10.0  # seconds that an innocent evaluation never takes, on a busy machine either
START = """
import os, random, re, signal, subprocess, sys, time
import numpy as np
import torch
from autoprune.measure.fitness import classification

def fitness(model, batches):
"""


class Bench:
    """The tiny job with a fitness of our own. `troubled` are candidates that a fitness can tell by their size."""

    def __init__(self, job, folder):
        self.job, self.folder = job, folder
        session = open_session(job(), lambda progress: None)
        rng = np.random.default_rng(0)
        space = session.space
        drawn = dict.fromkeys(Candidate(tuple(map(int, rng.integers(0, space.sizes)))) for _ in range(2000))
        self.candidates = list(drawn)[:200]
        self.sizes = {c: sum(p.numel() for p in session.scorer.network(c).parameters()) for c in self.candidates}
        times = Counter(self.sizes.values())
        self.troubled = [c for c in self.candidates if times[self.sizes[c]] == 1][:10]

    def body(self, *acts):
        """A fitness that does the first act with the first of the troubled candidates, and so on."""
        sizes = {self.sizes[c]: index for index, c in enumerate(self.troubled[: len(acts)])}
        lines = [f"trouble = {sizes}.get(sum(p.numel() for p in model.parameters()))"]
        lines += [f"if trouble == {index}:\n    {act}" for index, act in enumerate(acts)]
        return "\n".join([*lines, "return classification(model, batches)"])

    def scorer(self, body):
        path = self.folder / f"fitness{len(list(self.folder.iterdir()))}.py"
        path.write_text(START + textwrap.indent(body, "    ") + "\n")
        return open_session(self.job(fitness=load_plugin(f"{path}:fitness")), lambda progress: None).scorer

    @contextmanager
    def workers(self, body, count=2, **executor):
        """An evaluator of `count` worker processes, and the events of its supervision."""
        events = []
        options = Executor("processes", count, **executor)
        with open_evaluator(options, self.scorer(body), lambda *event: events.append(event)) as pool:
            yield pool, events

    def few(self, troubled=0):
        """So many of the troubled candidates, and twelve others."""
        return [*self.troubled[:troubled], *(c for c in self.candidates if c not in self.troubled)][: troubled + 12]


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return tmp_path_factory.mktemp("fitness")


@pytest.fixture
def bench(job, empty):
    return Bench(job, empty)


def answered(pool, candidates, each=lambda done: None):
    finished = {}
    for evaluation in answers(pool, candidates):
        finished[evaluation.candidate] = evaluation
        each(len(finished))
    return finished


def pids(events):
    """Of the workers that are alive, as far as was heard."""
    lost = {facts["worker"] for name, facts in events if name == "worker_lost"}
    return [facts["pid"] for name, facts in events if name == "worker_ready" and facts["worker"] not in lost]


def full_again(pool, count=2):
    """Whether there are as many workers as there should be, after the time they need to start."""
    return wait_until(lambda: pool._advance() or pool.alive == count, 60)


def all_fine(bench, found, but=()):
    """Whether every candidate has the values that this process measures, to the last bit."""
    scorer = bench.scorer("return classification(model, batches)")
    return all(found[c].values == scorer.score(c).values for c in found if c not in but)


def test_five_killed_workers_cost_two_hundred_evaluations_nothing(bench):
    rng = np.random.default_rng(0)
    moments = {20, 50, 90, 130, 180}
    with bench.workers("time.sleep(0.01); return classification(model, batches)") as (pool, events):

        def kill_one(done):
            if done in moments:
                os.kill(int(rng.choice(pids(events))), signal.SIGKILL)

        found = answered(pool, bench.candidates, kill_one)
        assert full_again(pool)
        counts = Counter(name for name, _ in events)
    assert len(found) == len(bench.candidates) == 200
    assert all(e.ok for e in found.values())
    assert all_fine(bench, found)
    assert counts["worker_lost"] == 5
    assert max((facts["attempts"] for name, facts in events if name == "retry"), default=0) <= 2


def test_candidates_that_kill_their_workers_are_given_up_after_some_attempts_and_the_others_are_fine(bench):
    acts = {
        "os._exit(3)": "exited with code 3",
        "os.kill(os.getpid(), signal.SIGKILL)": "was killed by SIGKILL",
        "print('out of ideas', file=sys.stderr); os.abort()": "was killed by SIGABRT, last saying 'out of ideas'",
        "raise KeyboardInterrupt": "last saying 'KeyboardInterrupt'",
    }
    with bench.workers(bench.body(*acts), attempts=2) as (pool, events):
        found = answered(pool, bench.few(4))
        assert full_again(pool)
    for candidate, cause in zip(bench.troubled, acts.values(), strict=False):
        assert found[candidate].status == "failed"
        assert found[candidate].cause.startswith("no answer in 2 attempts: worker-")
        assert found[candidate].cause.count(cause) == 2
    assert all_fine(bench, found, bench.troubled)
    assert Counter(name for name, _ in events)["worker_lost"] == 2 * 4


def test_candidates_that_hang_are_freed_after_their_time_with_all_they_have_started(bench, tmp_path):
    child = f"child = subprocess.Popen(['sleep', '1000']); print(child.pid, file=open({str(tmp_path / 'pid')!r}, 'w'), "
    acts = ["re.match('(a+)+b', 'a' * 60)", child + "flush=True); child.wait()"]
    with bench.workers(bench.body(*acts), attempts=1, timeout=LIMIT) as (pool, events):
        first = pids(events)
        started = time.monotonic()
        found = answered(pool, bench.few(2))
        seconds = time.monotonic() - started
        assert full_again(pool)
        assert not set(pids(events)) & set(first)
    for candidate in bench.troubled[:2]:
        assert found[candidate].status == "timeout"
        assert f"did not answer within {LIMIT:.0f} s" in found[candidate].cause
    assert all_fine(bench, found, bench.troubled)
    assert LIMIT <= seconds < LIMIT + 120  # two limits side by side, and two starts on a machine that may be busy
    assert wait_until(lambda: not runs(int((tmp_path / "pid").read_text())))


def test_candidates_that_take_all_memory_fail_with_that_cause_and_the_others_are_fine(bench):
    acts = [
        f"hoard = []\n    while True: hoard.append({more})" for more in ("bytearray(1 << 26)", "torch.ones(1 << 24)")
    ]
    with bench.workers(bench.body(*acts), attempts=2, memory_bytes=1 << 30) as (pool, _):
        found = answered(pool, bench.few(2))
        assert full_again(pool)
    for candidate in bench.troubled[:2]:
        assert found[candidate].status == "failed"
        assert found[candidate].cause.count("worker-") == 2
        assert found[candidate].cause.count("emory") >= 2  # MemoryError, or what torch says
    assert all_fine(bench, found, bench.troubled)


def test_what_a_fitness_raises_or_returns_by_mistake_fails_that_candidate_and_keeps_its_worker(bench):
    expected = "PluginError: expected the fitness to return a float or a dict of floats, got "
    acts = {
        "sys.exit(4)": "SystemExit: 4",
        "raise ValueError('three is too few')": "ValueError: three is too few",
        "return 'good'": expected + "'good'",
        "return None": expected + "None",
        "return {'accuracy': [1, 2]}": expected + "[1, 2] for 'accuracy'",
        "return {'accuracy': float('nan')}": "PluginError: expected a finite fitness, got accuracy = nan",
        "return {'accuracy': -float('inf')}": "PluginError: expected a finite fitness, got accuracy = -inf",
        "return {}": expected + "an empty dict",
        "raise type('Mute', (Exception,), {'__str__': None})": "Mute: its message cannot be printed",
        "raise ValueError('long' * 1000000)": "ValueError: longlong",
    }
    with bench.workers(bench.body(*acts)) as (pool, events):
        found = answered(pool, bench.few(10))
        assert Counter(name for name, _ in events)["worker_lost"] == 0
    for candidate, cause in zip(bench.troubled, acts.values(), strict=True):
        assert found[candidate].status == "failed"
        assert found[candidate].cause.startswith(cause)
        assert len(found[candidate].cause) < 1100
    assert all_fine(bench, found, bench.troubled)


def test_megabytes_that_are_printed_do_not_pile_up(bench):
    body = "for _ in range(20): print('x' * (1 << 20), flush=True)\nreturn classification(model, batches)"
    with bench.workers(body) as (pool, _):
        folder = pool._site._folder
        sizes = []
        found = answered(pool, bench.few(), lambda done: sizes.append(sum(f.stat().st_size for f in logs(folder))))
        pool._advance()
        pool._advance()
        left = [file.stat().st_size for file in logs(folder)]
    assert all_fine(bench, found)  # 12 times 20 MiB were printed
    assert max(sizes) <= 100 << 20
    assert all(size <= LOG_BYTES for size in left)
    assert not folder.exists()


def logs(folder):
    return list(folder.glob("*.log"))


def test_a_fitness_that_draws_random_numbers_gives_the_same_on_any_number_of_workers(bench):
    body = "return {'noise': random.random() + np.random.rand() + float(torch.rand(())), 'accuracy': 0.0}"
    noise = []
    for count, order in [(1, 1), (2, -1)]:
        with bench.workers(body, count) as (pool, _):
            noise.append({c: e.values["noise"] for c, e in answered(pool, bench.few()[::order]).items()})
    assert noise[0] == noise[1]


def test_a_fitness_that_sets_the_global_seed_changes_nobody_elses_numbers(bench):
    body = "np.random.seed(3); torch.manual_seed(3); return classification(model, batches)"
    with bench.workers(body) as (pool, _):
        assert all_fine(bench, answered(pool, bench.few()))


# before the search


def test_memory_that_is_too_little_to_start_is_told_before_the_search(bench):
    body = "return classification(model, batches)"
    with pytest.raises(RunFailed, match="could not start"), bench.workers(body, memory_bytes=1 << 20):
        pass


@pytest.mark.parametrize("hold", ["__import__('threading').Lock()", "(x for x in 'ab')"])
def test_a_fitness_that_cannot_be_sent_is_named_before_the_search(job, tmp_path, hold):
    path = tmp_path / "holding.py"
    path.write_text(f"held = {hold}\ndef fitness(model, batches):\n    return held and 0.0\n")
    with pytest.raises(PluginError, match="but the fitness is not: .* write `executor: serial`"):
        search(
            job(fitness=load_plugin(f"{path}:fitness"), guide=None, executor=Executor("processes", 1)), tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


class Connection:
    """What can be copied and not pickled."""

    def __init__(self):
        self.lock = threading.Lock()

    def __deepcopy__(self, memo):
        return self


def test_a_model_that_cannot_be_sent_is_named_before_the_search(job, model, tmp_path):
    model.held = Connection()
    with pytest.raises(PluginError, match="but the model is not: "):
        search(job(executor=Executor("processes", 1)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_plug_in_that_no_worker_can_import_is_told_before_the_search(job, tmp_path, monkeypatch):
    (tmp_path / "licensed.py").write_text(
        "import os\n"
        f"if os.getpid() != {os.getpid()}:\n    raise OSError('the licence is for one process')\n"
        "def fitness(model, batches):\n    return 0.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    broken = job(fitness=load_plugin("licensed:fitness"), guide=None, executor=Executor("processes", 1))
    with pytest.raises(RunFailed, match="cannot start: OSError: the licence is for one process") as error:
        search(broken, tmp_path / "run")
    assert "must be importable in workers" in error.value.__notes__[0]
    assert not (tmp_path / "run").exists()


def test_a_full_disk_for_temporary_files_is_told_before_the_search(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scorer = bench.scorer("return classification(model, batches)")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(RunFailed, match="parcel, which workers read .* cannot be written: .* TMPDIR"):
            Processes(scorer, count=1, cpus=1, memory=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.glob(f"{PREFIX}*"))
