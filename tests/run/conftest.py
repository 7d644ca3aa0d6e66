"""A tiny job: a residual network with random weights on random images, searched in a second or two."""

import contextlib
import importlib
import os
import signal
import socket
import uuid
from multiprocessing import forkserver

import numpy as np
import pytest
import torch
from commands import ROOT, WarmCommand, end_all, processes_with, wait_until, warm

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.data import Data
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


def random_data(seed, train=0):
    """Labelled images of four classes, of which so many are to train on."""
    rng = np.random.default_rng(seed)

    def images(n):
        return rng.standard_normal((n, 3, 8, 8)).astype(np.float32)

    def labelled(n):
        return images(n), rng.integers(0, 4, n)

    sets = (images(40),), labelled(40), labelled(60)
    return Data.from_arrays(*sets, train=labelled(train) if train else None, batch_size=20)


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
def job(data, model):
    def make(searcher="auto", evaluations=40, **changes):
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
            "threads": 1,
            "document": {"name": "tiny"},
        }
        return Job(**{**given, **changes})

    return make


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


def free_ports(count):
    """So many different ports on which nothing listens."""
    with contextlib.ExitStack() as listening:
        listeners = [listening.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


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
