"""Workers as Ray actors, on a cluster or on this machine.

Only Ray's actors and object store are used. The driver does restarts and retries (run.executors.pool), as Ray's own
share one budget over all calls, repeat a call that kills its actor, and wait forever for resources that no node has.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import signal
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.measure.scorer import Scorer
from autoprune.run.executors.parcel import Builder, pack
from autoprune.run.executors.pool import News
from autoprune.run.executors.worker import Work, introduction, is_spent, settle_threads
from autoprune.run.records.folder import naming
from autoprune.run.session.job import Executor

try:
    import ray
except ImportError as missing:
    raise ConfigError(
        "run.executor: ray is not installed. Install it with: pip install 'autoprune[cluster]'"
    ) from missing

CAPACITY_SECONDS = 2.0  # how long the capacity of the cluster is cached
ANSWER_SECONDS = 10.0  # time limit for an answer of the head of a cluster
TIDY_SECONDS = 2.0  # time limit for removing the parcel's files
STALE_SECONDS = 86400.0  # a parcel's file of this age belongs to a killed run, or is already mapped


class ScoringActor:
    """The class of the actors."""

    def __init__(self, name: str, key: str, parcel: np.ndarray, cpus: float) -> None:
        settle_threads(cpus)
        self._name = name
        self._files = [_local_file(parcel)]
        self._bench, self._told = introduction(key, self._files[0], name)

    def __repr__(self) -> str:
        return self._name

    def ready(self) -> dict[str, Any]:
        return {**self._told, "node": ray.get_runtime_context().get_node_id()}

    def alive(self) -> None:
        """Returns, which shows that the actor has not died."""

    def answer(self, work: Work, key: str, parcel: np.ndarray, candidate: Candidate) -> Evaluation:
        assert self._bench is not None, "an actor that could not start gets no candidate"
        self._bench.turn_to(key, lambda: self._local(parcel))
        return self._bench.answer(work, candidate)

    def tidy(self) -> None:
        """Removes this node's files of parcels; processes that map them keep their mapping."""
        for file in self._files:
            file.unlink(missing_ok=True)

    def _local(self, parcel: np.ndarray) -> Path:
        self._files.append(_local_file(parcel))
        return self._files[-1]


def _local_file(parcel: np.ndarray) -> Path:
    """The parcel as a file of this node, written by the first actor that needs it and mapped by all.

    It is private to the user, and a file of another owner is not read, as unpickling can run any code.
    """
    prefix = f"autoprune-{os.getuid()}-"
    path = Path(tempfile.gettempdir()) / f"{prefix}{hashlib.sha256(parcel.data).hexdigest()[:16]}.parcel"
    if not (path.exists() and path.lstat().st_uid == os.getuid()):
        _sweep(path.parent, prefix)
        descriptor, scratch = tempfile.mkstemp(".parcel", prefix)
        with naming(path), open(descriptor, "wb") as file:
            file.write(parcel.data)
        Path(scratch).replace(path)
    return path


def _sweep(folder: Path, prefix: str) -> None:
    """Removes the files of runs that were killed."""
    for path in folder.glob(f"{prefix}*.parcel"):
        with contextlib.suppress(OSError):  # another actor was faster
            if time.time() - path.lstat().st_mtime > STALE_SECONDS:
                path.unlink()


@dataclass(eq=False)
class Actor:
    """One actor of a team, and its pending answer. `node` is its node, known when it is ready.

    Ray does not report an actor that dies while it is idle. So a call of `alive` precedes each candidate, so that the
    candidate is not blamed for an earlier death.
    """

    name: str
    handle: Any
    pending: Any
    team: set[Actor]
    parcel: Any  # a reference to the one that the next candidate needs
    node: str = ""
    work: Work = "score"
    candidate: Candidate | None = None  # not sent yet

    def submit(self, candidate: Candidate) -> None:
        self._announce("score", candidate)

    def build(self, candidate: Candidate) -> None:
        self._announce("build", candidate)

    def begin(self) -> None:
        self.pending = self.handle.answer.remote(self.work, self.parcel.hex(), self.parcel, self.candidate)
        self.candidate = None

    def _announce(self, work: Work, candidate: Candidate) -> None:
        self.work, self.candidate = work, candidate
        self.pending = self.handle.alive.remote()

    def kill(self) -> None:
        self.team.discard(self)  # it gives no further news
        ray.kill(self.handle, no_restart=True)


class RayActors:
    """The site of Ray actors: as many as the cluster has room for, at most `executor.workers`.

    Nodes that join add room; the actors of nodes that leave die.

    Raises:
        ConfigError: there is no cluster at the address, or no node can run a worker.
    """

    def __init__(self, scorer: Scorer, executor: Executor) -> None:
        self._executor = executor
        self._actors: set[Actor] = set()
        self._counted = (-CAPACITY_SECONDS, 0)
        self._run = uuid.uuid4().hex[:6]
        self._own = _connect(executor)
        try:
            _check_resources(executor)
            self._scorer = scorer
            self._parcel = self._packed()
        except BaseException:
            self.close()
            raise

    def carry(self, builder: Builder) -> None:
        self._parcel = self._packed(builder)
        for actor in self._actors:
            actor.parcel = self._parcel

    def _packed(self, builder: Builder | None = None) -> Any:
        """A reference to the parcel, from which every node reads its own copy."""
        file = io.BytesIO()
        pack(self._scorer, file, self._crowd(), builder)
        return ray.put(np.frombuffer(file.getbuffer(), np.uint8))

    def capacity(self) -> int:
        when, count = self._counted
        if time.monotonic() - when >= CAPACITY_SECONDS:
            count = sum(_places(node["Resources"], self._executor) for node in _nodes())
            self._counted = (time.monotonic(), count)
        return min(count, self._executor.workers or count)

    def _crowd(self) -> int:
        """The largest number of workers on a node."""
        largest = max(_places(node["Resources"], self._executor) for node in _nodes())
        return min(largest, self._executor.workers or largest)

    def start(self, name: str) -> Actor:
        actor_class: Any = ray.remote(ScoringActor)
        handle = actor_class.options(
            name=f"autoprune-{self._run}-{name}",
            num_cpus=self._executor.cpus,
            num_gpus=self._executor.gpus,
            memory=self._executor.memory_bytes,
            max_restarts=0,
            max_task_retries=0,
        ).remote(name, self._parcel.hex(), self._parcel, self._executor.cpus)
        actor = Actor(name, handle, handle.ready.remote(), self._actors, self._parcel)
        self._actors.add(actor)
        return actor

    def wait(self, seconds: float) -> Sequence[News]:
        pending = {actor.pending: actor for actor in self._actors if actor.pending is not None}
        if not pending:
            time.sleep(seconds)
            return []
        first, _ = ray.wait(list(pending), num_returns=1, timeout=seconds)
        done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=0) if first else ([], [])
        heard = [self._hear(pending[reference]) for reference in done]
        return [news for news in heard if news is not None]

    def close(self) -> None:
        self._tidy()
        for actor in list(self._actors):
            actor.kill()
        if self._own:
            ray.shutdown()

    def _tidy(self) -> None:
        """Lets one actor of every node remove the parcel's file; if all are busy for long, a later run removes it."""
        idle_last = sorted(self._actors, key=lambda actor: actor.pending is None)
        calls = [actor.handle.tidy.remote() for actor in {a.node: a for a in idle_last if a.node}.values()]
        if calls:
            ray.wait(calls, num_returns=len(calls), timeout=TIDY_SECONDS)

    def _hear(self, actor: Actor) -> News | None:
        reference, actor.pending = actor.pending, None
        try:
            answer = ray.get(reference)
        except ray.exceptions.RayError as error:
            actor.kill()  # an actor that cannot be reached may still be running
            return News(actor, "died", cause=_last_words(error), begun=actor.candidate is None)
        if actor.candidate is not None:
            actor.begin()
            return None
        if isinstance(answer, Evaluation):
            return News(actor, "answer", answer, spent=is_spent(answer))
        actor.node = answer["node"]
        if "error" in answer:
            actor.kill()
            return News(actor, "died", cause=answer["error"], facts=answer)
        return News(actor, "ready", facts=answer)


def _connect(executor: Executor) -> bool:
    """Connects to the cluster of the address, or to a new one on this machine; False if already connected."""
    if ray.is_initialized():
        return False
    with _signals_kept():
        try:
            _check_answers(executor.address)
            ray.init(
                address=executor.address,
                runtime_env=dict(executor.runtime_env) or None,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"run.address: expected a Ray cluster at {executor.address!r}, found none: {str(error).rstrip('.')}. "
                "Start one with `ray start --head`, or write `address: local` for one on this machine."
            ) from error
    return True


def _check_answers(address: str) -> None:
    """Raises OSError if no server answers at an address, as Ray would wait for minutes and then end the process."""
    if address == "auto":
        address = ray._private.services.get_ray_address_from_environment("auto", None)
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Restores the signal handlers, as Ray's handler for SIGTERM in a driver would end a run without a message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _places(resources: Mapping[str, float], executor: Executor) -> int:
    """The number of workers that fit on a node with these resources."""
    wanted = {"CPU": executor.cpus, "GPU": executor.gpus, "memory": executor.memory_bytes or 0}
    return int(min(resources.get(name, 0) / amount for name, amount in wanted.items() if amount))


def _check_resources(executor: Executor) -> None:
    """Raises ConfigError for resources that no node has, as Ray would wait for them forever."""
    nodes = _nodes()
    if any(_places(node["Resources"], executor) for node in nodes):
        return
    has = "; ".join(
        f"{node['NodeManagerHostname']}: {node['Resources'].get('CPU', 0):g} cpus, "
        f"{node['Resources'].get('GPU', 0):g} gpus, {node['Resources'].get('memory', 0) / 2**30:.1f} GiB"
        for node in nodes
    )
    asked = f"cpus: {executor.cpus:g}, gpus: {executor.gpus:g}"
    if executor.memory_bytes:
        asked += f", memory_gib: {executor.memory_bytes / 2**30:g}"
    raise ConfigError(
        f"run.resources: expected resources that one node of the cluster has, got {{{asked}}} for a worker. The "
        f"cluster has {has or 'no nodes'}. Ask for less, or add a node first."
    )


def _last_words(error: Exception) -> str:
    """The innermost exception of Ray's message, which has many lines."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    raised = [line for line in lines if line.partition(":")[0].endswith(("Error", "Exception", "Interrupt"))]
    return f"died: {type(error).__name__}: {(raised or lines or [''])[-1][:300]}"
