"""What runs in a worker: it opens the parcel and scores what it is given, until its driver is gone.

Started as `python -c "from autoprune.run.executors.worker import main; main()"` with its end of the connection, never
by forking and never by importing the user's own script again. The first half serves every kind of worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.process import ending_forks
from autoprune.measure.scorer import Scorer
from autoprune.run.executors.computing import computing, hardware, versions
from autoprune.run.executors.parcel import unpack

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "can't allocate memory")


def settle_threads(cpus: float) -> None:
    """The one place that says how many threads a worker's torch uses; call it before any work on tensors."""
    torch.set_num_threads(max(1, int(cpus)))
    torch.set_num_interop_threads(1)


def _keep_freed_memory() -> None:
    """Layers free what the next ones need: giving it back to the system in between takes a third of a score's time."""
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        glibc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most it takes


@ending_forks()
def open_scorer(parcel: Path, name: str) -> Scorer:
    """The scorer of a parcel, ready to score as the named worker: what is slow once is done now."""
    _keep_freed_memory()
    scorer = unpack(parcel)
    scorer.worker = name
    scorer.prepare()
    return scorer


def introduction(parcel: Path, name: str) -> tuple[Scorer | None, dict[str, Any]]:
    """The scorer of a parcel, and what its driver is told of this worker: what it computes with, and on what.

    Where it cannot be opened there is none, and the driver is told why ("error").
    """
    try:
        scorer = open_scorer(parcel, name)
    except (Exception, SystemExit) as error:  # unpacking imports what the user wrote
        traceback.print_exc()
        cause = f"cannot start: {traceback.format_exception_only(error)[-1].strip()}"
        return None, {**facts(), "computing": versions(), "error": cause}
    return scorer, {**facts(), "computing": computing(scorer), "hardware": hardware()}


def facts() -> dict[str, Any]:
    """What identifies a worker and what its last bits depend on."""
    return {
        "pid": os.getpid(),
        "host": platform.node(),
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
        "torch": torch.__version__,
    }


def is_spent(evaluation: Evaluation) -> bool:
    """Whether a worker ran out of memory, which it may not get back: another one should try."""
    return evaluation.status == "failed" and any(sign in evaluation.cause for sign in OUT_OF_MEMORY)


def main() -> None:
    """Arguments: file descriptor of the connection, path of the parcel, cpus, bytes of memory (0: no limit), name."""
    descriptor, parcel, cpus, memory, name = sys.argv[1:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a batch system may send it to all processes; the driver decides
    _end_with_driver()
    _volunteer_for_the_oom_killer()
    if int(memory):
        resource.setrlimit(resource.RLIMIT_DATA, (int(memory), int(memory)))
    connection = Connection(int(descriptor))
    try:
        settle_threads(float(cpus))
        scorer, told = introduction(Path(parcel), name)
    except BaseException as error:
        connection.send(("died", {"error": f"cannot start: {traceback.format_exception_only(error)[-1].strip()}"}))
        raise
    connection.send(("died" if scorer is None else "ready", told))
    if scorer is None:
        sys.exit(1)
    with contextlib.suppress(EOFError):  # the driver closed its end
        while True:
            connection.send(("answer", scorer.score(connection.recv())))


def _end_with_driver() -> None:
    """Standard input is a pipe the driver never writes to: its end means that the driver is gone, however it went."""
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        os.read(lifeline, 1)
        os.killpg(0, signal.SIGKILL)  # with whatever user code has started

    threading.Thread(target=watch, daemon=True).start()


def _volunteer_for_the_oom_killer() -> None:
    """When memory runs out, Linux shall kill a worker, which is replaced, and not the driver."""
    with contextlib.suppress(OSError):  # other systems have no such file
        Path("/proc/self/oom_score_adj").write_text("800")
