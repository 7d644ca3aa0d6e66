"""A tiny job: a residual network with random weights on random images, searched in a second or two."""

import contextlib
import importlib
import os
import shutil
import signal
import uuid
from multiprocessing import forkserver

import pytest
import torch
from commands import ROOT, WarmCommand, end_all, processes_with, wait_until, warm
from tiny import free_ports, random_data

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.measure.fitness import classification
from autoprune.run.session.job import Job
from autoprune.searchers import make_searcher
from autoprune.zoo.resnet import ResNet

HALVES = (0.25, 0.5, 0.75)
PRELOADED = [
    "autoprune.cli",
    "autoprune.config",
    "autoprune.console",
    "autoprune.run.drive",
    "sklearn.datasets",
    "torch",
]
STARTED_BY = "AUTOPRUNE_TEST_STARTED_BY"  # a variable that tells of a process which test it belongs to


@pytest.fixture(scope="session")
def data():
    return random_data(0)


@pytest.fixture(scope="session")
def trainable():
    """Data with a train set."""
    return random_data(1, train=70)


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()


@pytest.fixture
def compensation():
    """The compensation of the tiny job; modules whose tests look at the networks of the front override it."""
    return "none"


@pytest.fixture
def job(data, model, compensation):
    def make(searcher="auto", evaluations=24, **changes):
        options = changes.pop("options", {})
        given = {
            "name": "tiny",
            "model": lambda: model,
            "data": lambda: data,
            "rules": (LevelRule("*", HALVES),),
            "objectives": (Objective("accuracy", "max"), Objective("macs", "min")),
            "searcher": lambda problem, seed: make_searcher(searcher, problem, seed=seed, **options),
            "fitness": classification,
            "evaluations": evaluations,
            "front_size": 5,
            "compensation": compensation,
            "threads": 1,
            "document": {"name": "tiny"},
        }
        return Job(**{**given, **changes})

    return make


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """Copies of runs that a module makes once: `made_once(key, make, to)`, where `make(path)` makes the run."""
    folder, runs = tmp_path_factory.mktemp("once"), {}

    def copy(key, make, to):
        if key not in runs:
            runs[key] = folder / str(len(runs))
            make(runs[key])
        return shutil.copytree(runs[key], to)

    return copy


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    end_all()


@pytest.fixture(scope="session")
def start_warm():
    """Starts the command in processes that are forked from one that has imported torch and scikit-learn."""
    for name in PRELOADED:
        importlib.import_module(name)  # one that is not there is left out without a word
    warm.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OMP_NUM_THREADS", "1")
        environment.setenv("PYTHONPATH", str(ROOT))
        forkserver.ensure_running()
    return WarmCommand


@pytest.fixture(autouse=True)
def no_ray_left_running(request, monkeypatch):
    """A test on Ray ends every process it starts; those of the cluster that all tests share are not of a test."""
    if request.node.get_closest_marker("ray") is None:
        yield
        return
    mark = uuid.uuid4().hex
    monkeypatch.setenv(STARTED_BY, mark)
    yield
    wait_until(lambda: not processes_with(STARTED_BY, mark), 30)
    left = processes_with(STARTED_BY, mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, "the test has left processes running"


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of one node with room for two workers, a dashboard and a server for clients, on this machine."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    names = ("dashboard_port", "ray_client_server_port", "dashboard_agent_listen_port")
    head = {"num_cpus": 2, "include_dashboard": True, **dict(zip(names, free_ports(len(names)), strict=True))}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("GRPC_ENABLE_FORK_SUPPORT", "0")  # with it the server for clients dies where it forks
        environment.setenv("RAY_worker_niceness", "0")  # not 15, with which workers starve on a busy machine
        started = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
        yield started
        started.shutdown()


@pytest.fixture
def full_disk():
    """A context in which no file of this process can grow beyond so many bytes, as on a disk that is full."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
