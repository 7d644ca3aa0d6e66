"""The program of a worker: it opens the parcel and scores candidates until its driver is gone.

It is started as `python -c "from autoprune.run.executors.worker import main; main()"` with its end of the connection,
never by forking and never by importing the user's script again. The first half is shared by every kind of worker.
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
    """Sets the number of threads of a worker's torch, and nothing else does; call it before any work on tensors."""
    torch.set_num_threads(max(1, int(cpus)))
    torch.set_num_interop_threads(1)


def _keep_freed_memory() -> None:
    """Keeps freed memory for the next layers, as returning it to the system takes a third of a score's time."""
    with contextlib.suppress(OSError, AttributeError):  # a C library other than glibc
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        glibc.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # its largest valid value


@ending_forks()
def open_scorer(parcel: Path, name: str) -> Scorer:
    """Opens the scorer of a parcel for the named worker and computes the values that candidates share."""
    _keep_freed_memory()
    scorer = unpack(parcel)
    scorer.worker = name
    scorer.prepare()
    return scorer


def introduction(parcel: Path, name: str) -> tuple[Scorer | None, dict[str, Any]]:
    """The scorer of a parcel, and facts on this worker for its driver: software, settings and hardware.

    If the parcel cannot be opened, the scorer is None and the facts have the reason ("error").
    """
    try:
        scorer = open_scorer(parcel, name)
    except (Exception, SystemExit) as error:  # unpacking imports the user's code
        traceback.print_exc()
        cause = f"cannot start: {traceback.format_exception_only(error)[-1].strip()}"
        return None, {**facts(), "computing": versions(), "error": cause}
    return scorer, {**facts(), "computing": computing(scorer), "hardware": hardware()}


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
