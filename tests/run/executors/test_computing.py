"""Workers that compute with something else than the driver: the difference is named, and no value of theirs used."""

import os
import shutil
import sys
import time
from collections import deque
from pathlib import Path

import cloudpickle
import pytest
import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import RunFailed
from autoprune.measure.fitness import classification
from autoprune.plugins import load_plugin
from autoprune.run import search
from autoprune.run.executors.computing import apply_settings, computing, differences, hardware, torch_settings, versions
from autoprune.run.executors.pool import News, Pool
from autoprune.run.executors.processes import Processes
from autoprune.run.executors.reference import Reference
from autoprune.run.session.job import Executor, silent
from autoprune.run.session.session import open_session

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROOT = Path(__file__).parents[3]
DENSE, OTHER = Candidate((0,)), Candidate((1,))
OURS = {"torch": "2.13", "numpy": "2.1", "module plug": "ab"}


def test_differences_are_named_and_modules_count_where_both_have_them():
    assert differences(OURS, OURS) == []
    assert differences(OURS, {**OURS, "torch": "2.12"}) == ["torch is 2.13 here and 2.12 there"]
    assert differences(OURS, {"torch": "2.13"}) == ["numpy is 2.1 here and not known there"]
    assert differences(OURS, {**OURS, "module plug": "cd"}) == ["module plug is ab here and cd there"]


def test_what_a_process_computes_with_changes_with_settings_variables_and_sources(job, tmp_path, monkeypatch):
    (tmp_path / "measured.py").write_text("from autoprune.measure.fitness import classification as fitness\nA = 1\n")
    (tmp_path / "wrapping.py").write_text("import measured\ndef fitness(m, b):\n    return measured.fitness(m, b)\n")
    monkeypatch.syspath_prepend(tmp_path)
    scorer = open_session(job(fitness=load_plugin("wrapping:fitness")), silent).scorer
    before = computing(scorer)
    assert {"module wrapping", "module measured"} <= before.keys()
    assert before == computing(scorer)
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    (tmp_path / "measured.py").write_text("A = 2\n")
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        named = {clause.partition(" is ")[0] for clause in differences(before, computing(scorer))}
    finally:
        torch.set_float32_matmul_precision(precision)
    expected = {"the variable ONEDNN_DEFAULT_FPMATH_MODE", "module measured", "torch's float32 matmul precision"}
    assert named == expected
    for name in ("wrapping", "measured"):
        del sys.modules[name]


def test_settings_of_torch_are_carried_over():
    before = torch_settings()
    try:
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        there = torch_settings()
        apply_settings(before)
        assert torch_settings() == before
        apply_settings(there)
        assert torch.get_default_dtype() is torch.float64
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        apply_settings(before)


class Worker:
    def __init__(self, site, name):
        self.site, self.name = site, name

    def submit(self, candidate):
        self.site.asked.append((self.name, candidate))
        values = {"kl": self.site.values.get(self.name, 0.0)}
        self.site.news.append(News(self, "answer", Evaluation(candidate, values, worker=self.name)))

    def kill(self):
        pass


class Site:
    """Workers that are ready at once, with facts of their own."""

    def __init__(self, facts, values=(), kind="ready"):
        self.facts, self.values, self.kind = facts, dict(values), kind
        self.asked, self.news = [], deque()

    def capacity(self):
        return len(self.facts)

    def start(self, name):
        worker = Worker(self, name)
        facts = self.facts[int(name.rpartition("-")[2]) % len(self.facts)]
        self.news.append(News(worker, self.kind, facts=facts, cause="cannot start: AttributeError"))
        return worker

    def wait(self, seconds):
        return [self.news.popleft()] if self.news else []

    def close(self):
        pass


def pool(site):
    return Pool(site, attempts=3, timeout=None, on_event=lambda name, facts: None, own=OURS)


@pytest.mark.parametrize("kind", ["ready", "died"])
def test_a_worker_with_another_version_ends_the_run_when_it_introduces_itself(kind):
    site = Site([{"computing": {**OURS, "torch": "2.12"}, "host": "node7"}], kind=kind)
    with pytest.raises(
        RunFailed, match="worker-0 on node7 differs from this process: torch is 2.13 here and 2.12 there"
    ):
        pool(site).wait_ready()
    assert not site.asked


def test_a_worker_that_says_nothing_of_what_it_computes_with_is_refused():
    with pytest.raises(RunFailed, match="torch is 2.13 here and not known there"):
        pool(Site([{"pid": 1}])).wait_ready()


def reference(values, *, exact=True, again=None, warn=lambda text: None):
    return Reference(lambda: Evaluation(DENSE, again or values), values, exact, warn)


def test_every_worker_scores_the_known_candidate_first_and_one_with_other_values_ends_the_run():
    facts = {"computing": OURS, "hardware": hardware()}
    site = Site([facts, facts], {"worker-1": 0.5})
    workers = pool(site)
    workers.submit(DENSE)
    answer = workers.collect()
    workers.prove_by(answer, reference({"kl": 0.0}).check)
    for _ in range(2):
        workers.submit(OTHER)
    with pytest.raises(RunFailed, match=r"worker-1 measures other values .* kl 0.0 here and 0.5 there"):
        [workers.collect() for _ in range(2)]
    assert (answer.worker, [c for name, c in site.asked if name == "worker-1"]) == ("worker-0", [DENSE])


def test_values_of_other_hardware_may_differ_a_little_which_is_told():
    told = []
    check = reference({"kl": 0.3}, warn=told.append).check
    check("worker-0", Evaluation(DENSE, {"kl": 0.3}), hardware())
    assert not told
    check("worker-0", Evaluation(DENSE, {"kl": 0.3001}), "another processor")
    assert "values depend on the hardware" in told[0]
    for values, where in (({"kl": 0.3001}, hardware()), ({"kl": 0.4}, "another processor"), ({}, "another processor")):
        with pytest.raises(RunFailed, match="measures other values of the dense network than this process: kl 0.3"):
            check("worker-0", Evaluation(DENSE, values), where)


def test_what_a_fitness_measures_anew_each_time_is_left_out_and_told():
    told = []
    check = reference({"ms": 3.0, "kl": 0.0}, again={"ms": 4.0, "kl": 0.0}, warn=told.append).check
    check("worker-0", Evaluation(DENSE, {"ms": 9.0, "kl": 0.0}), hardware())
    assert told == ["the fitness gives a different ms each time: runs with it are not repeatable"]
    with pytest.raises(RunFailed, match="kl 0.0 here and 1.0 there"):
        check("worker-0", Evaluation(DENSE, {"ms": 9.0, "kl": 1.0}), hardware())


def test_a_worker_that_fails_with_the_dense_network_is_named():
    with pytest.raises(RunFailed, match="worker-2 cannot score the dense network, but others can: no GPU"):
        reference({"kl": 0.0}).check("worker-2", Evaluation(DENSE, {}, "failed", "no GPU"), hardware())


# real workers


def biased(model, batches):
    values = classification(model, batches)
    return {**values, "accuracy": values["accuracy"] + float(os.environ.get("AUTOPRUNE_TEST_BIAS", "0"))}


def timed(model, batches):
    start = time.perf_counter()
    return {**classification(model, batches), "ms": 1000 * (time.perf_counter() - start)}


def patched_package(folder):
    """A copy of autoprune with one line more."""
    shutil.copytree(ROOT / "autoprune", folder / "autoprune", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "autoprune" / "measure" / "fitness.py").open("a") as file:
        file.write("# another one\n")
    return folder


@pytest.fixture
def elsewhere(monkeypatch):
    """Changes the environment of worker processes."""

    def change(**variables):
        environment = Processes._environment
        monkeypatch.setattr(Processes, "_environment", lambda self: {**environment(self), **variables})

    return change


PROCESSES = Executor("processes", 2)


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_processes_with_another_package_or_variable_are_refused(job, elsewhere, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a worker looks first
    path = os.pathsep.join([str(patched_package(tmp_path)), *sys.path])
    elsewhere(PYTHONPATH=path, ONEDNN_DEFAULT_FPMATH_MODE="BF16")
    with pytest.raises(RunFailed) as failure:
        search(job("random", 4, executor=PROCESSES), tmp_path / "run")
    own = versions()["autoprune"]
    assert f"autoprune is {own} here and " in str(failure.value)
    assert "the variable ONEDNN_DEFAULT_FPMATH_MODE is not set here and BF16 there" in str(failure.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_processes_that_measure_something_else_of_the_dense_network_are_refused(job, elsewhere, tmp_path):
    elsewhere(AUTOPRUNE_TEST_BIAS="0.25")
    with pytest.raises(RunFailed, match=r"worker-\d measures other values of the dense network .* accuracy 0.125 here"):
        search(job("random", 4, fitness=biased, executor=PROCESSES), tmp_path / "run")


@pytest.mark.faults
@pytest.mark.timeout(300)
def test_a_measured_time_is_no_difference_and_settings_of_torch_are_those_of_the_driver(job, caplog):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        result = search(job("random", 6, fitness=timed, executor=PROCESSES), None)
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(evaluation.ok for evaluation in result.evaluations)
    assert "the fitness gives a different ms each time" in caplog.text


@pytest.mark.ray
@pytest.mark.timeout(300, method="thread")
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}, "FPMATH_MODE is not set here and BF16 there"),
        ({"AUTOPRUNE_TEST_BIAS": "0.25"}, "measures other values of the dense network"),
        ({"PYTHONPATH": ""}, "autoprune is .* here and .* there"),
    ],
)
def test_actors_that_compute_with_something_else_are_refused(job, cluster, tmp_path, variables, said):
    package = {} if "PYTHONPATH" not in variables else {"working_dir": str(patched_package(tmp_path / "there"))}
    executor = Executor("ray", 1, address=cluster.address, runtime_env={"env_vars": variables, **package})
    with pytest.raises(RunFailed, match=said):
        search(job("random", 4, fitness=biased, executor=executor), tmp_path / "run")
