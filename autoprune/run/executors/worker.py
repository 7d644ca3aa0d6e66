"""The program of a worker: it opens parcels, and scores or builds candidates until its driver is gone.

It is started as `python -c "from autoprune.run.executors.worker import main; main()"` with its end of the connection,
never by forking and never by importing the user's script again. The first half is shared by every kind of worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.process import ending_forks
from autoprune.core.space import Candidate
from autoprune.run.executors.computing import computing, hardware, versions
from autoprune.run.executors.parcel import Parcel, unpack

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
Work = Literal["score", "build"]  # scores a candidate, or builds it as a network of the front

OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "can't allocate memory")


def settle_threads(cpus: float) -> None:
    """Sets the number of threads of a worker's torch, and nothing else does; call it before any work on tensors."""
    torch.set_num_threads(max(1, int(cpus)))
    torch.set_num_interop_threads(1)


def _keep_freed_memory() -> None:
    """Keeps freed memory for the next layers, as returning it to the system takes a third of a score's time."""
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        glibc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # its largest valid value


class Bench:
    """The parcel that the named worker has opened last, and what it does with candidates."""

    def __init__(self, key: str, file: Path, name: str) -> None:
        _keep_freed_memory()
        self._name = name
        self._key, self._parcel = key, self._opened(file)
        if self._parcel.builder is None:
            with ending_forks():
                self._parcel.scorer.prepare()

    def computing(self) -> dict[str, str]:
        """The facts that determine the values of this worker (run.executors.computing)."""
        return computing(self._parcel.scorer)

    def turn_to(self, key: str, file: Callable[[], Path]) -> None:
        """Opens the parcel of this key, unless it is the one that is open."""
        if key != self._key:
            del self._parcel  # before the next one takes memory
            self._key, self._parcel = key, self._opened(file())

    def answer(self, work: Work, candidate: Candidate) -> Evaluation:
        if work == "score":
            return self._parcel.scorer.score(candidate)
        assert self._parcel.builder is not None, "networks are built with the parcel that has a builder"
        return self._parcel.builder.build(candidate)

    def _opened(self, file: Path) -> Parcel:
        with ending_forks():
            parcel = unpack(file)
        parcel.scorer.worker = self._name
        return parcel


def introduction(key: str, file: Path, name: str) -> tuple[Bench | None, dict[str, Any]]:
    """A bench with a parcel, and facts on this worker for its driver: software, settings and hardware.

    If the parcel cannot be opened, the bench is None and the facts have the reason ("error").
    """
    try:
        bench = Bench(key, file, name)
    except (Exception, SystemExit) as error:  # unpacking imports the user's code
        traceback.print_exc()
        cause = f"cannot start: {traceback.format_exception_only(error)[-1].strip()}"
        return None, {**facts(), "computing": versions(), "error": cause}
    return bench, {**facts(), "computing": bench.computing(), "hardware": hardware()}


def facts() -> dict[str, Any]:
    """The facts that identify a worker and determine the last bits of its values."""
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "torch": torch.__version__,
    }


def is_spent(evaluation: Evaluation) -> bool:
    """Whether a worker ran out of memory, which it may not get back, so that another worker should try."""
    return evaluation.status == "failed" and any(sign in evaluation.cause for sign in OUT_OF_MEMORY)


def main() -> None:
    """Runs a worker. Arguments: file descriptor of the connection, path of the parcel, cpus, bytes of memory (0: no
    limit), name."""
    descriptor, parcel, cpus, memory, name = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a batch system may send SIGINT to all processes; the driver decides
    _end_with_driver()
    _volunteer_for_the_oom_killer()
    if int(memory):
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    connection = Connection(int(descriptor))
    try:
        settle_threads(float(cpus))
        bench, told = introduction(parcel, Path(parcel), name)
    except BaseException as error:
        connection.send(("died", {"error": f"cannot start: {traceback.format_exception_only(error)[-1].strip()}"}))
        raise
    connection.send(("died" if bench is None else "ready", told))
    if bench is None:
        sys.exit(1)
    with contextlib.suppress(EOFError):  # the driver closed its end
        while True:
            work, parcel, candidate = connection.recv()
            bench.turn_to(parcel, functools.partial(Path, parcel))
            connection.send(("answer", bench.answer(work, candidate)))


def _end_with_driver() -> None:
    """Ends the process when the driver is gone: standard input, a pipe that it never writes to, is closed then."""
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)  # with the processes that user code has started

    threading.Thread(target=watch, daemon=True).start()


def _volunteer_for_the_oom_killer() -> None:
    """Makes Linux kill this worker, which can be replaced, rather than the driver when memory runs out."""
    with contextlib.suppress(OSError):  # other systems have no such file
        Path("/proc/self/oom_score_adj").write_text("800")
