"""Workers as processes on this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

from autoprune.core.space import Candidate
from autoprune.errors import RunFailed
from autoprune.measure.scorer import Scorer
from autoprune.run.executors.parcel import Builder, pack
from autoprune.run.executors.pool import News
from autoprune.run.executors.worker import Work, is_spent

COMMAND = "from autoprune.run.executors.worker import main; main()"
PREFIX = "autoprune-workers-"
LOG_BYTES = 1 << 20  # the output of a worker is kept up to this size
LAST_BYTES = 4096  # the end of it that is searched for its last line


@dataclass(eq=False)
class Process:
    """One worker process and the driver's end of the connection to it.

    Its output is in `log`; `parcel` is the file that its next candidate needs.
    """

    name: str
    process: subprocess.Popen[bytes]
    connection: Connection
    log: Path
    parcel: Path

    def submit(self, candidate: Candidate) -> None:
        self._send("score", candidate)

    def build(self, candidate: Candidate) -> None:
        self._send("build", candidate)

    def _send(self, work: Work, candidate: Candidate) -> None:
        with contextlib.suppress(OSError):  # it died a moment ago; wait() will report that
            self.connection.send((work, str(self.parcel), candidate))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # with the processes that user code has started
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.connection.close()

    def last_words(self) -> str:
        """A message about how the process ended, with the last line it printed."""
        code = self.process.returncode
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
        return f"{how}, last saying {lines[-1][:200]!r}" if lines else how

    def forget_long_output(self) -> None:
        """Empties a log that has grown too long; later output is appended."""
        if self.log.stat().st_size > LOG_BYTES:
            os.truncate(self.log, 0)


class Processes:
    """The site of worker processes: `count` at once, each with `cpus` threads and at most `memory` bytes of its own."""

    def __init__(self, scorer: Scorer, *, count: int, cpus: float, memory: int | None) -> None:
        self._count, self._cpus, self._memory = count, cpus, memory or 0
        self._scorer = scorer
        self._workers: list[Process] = []
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        try:
            self._parcel = self._packed("parcel")
        except BaseException:
            self.close()
            raise

    def carry(self, builder: Builder) -> None:
        self._parcel = self._packed("parcel-of-the-front", builder)
        for worker in self._workers:
            worker.parcel = self._parcel

    def _packed(self, name: str, builder: Builder | None = None) -> Path:
        path = self._folder / name
        try:
            with path.open("wb") as file:
                pack(self._scorer, file, self._count, builder)
        except (OSError, RuntimeError) as error:
            path.unlink(missing_ok=True)
            raise RunFailed(
                f"{path}, which workers read model and data from, cannot be written: {error}. Make room there, "
                "or name another folder for temporary files by TMPDIR."
            ) from error
        return path

    def capacity(self) -> int:
        return self._count

    def start(self, name: str) -> Process:
        ours, theirs = Pipe()
        log = self._folder / f"{name}.log"
        arguments = [theirs.fileno(), self._parcel, self._cpus, self._memory, name]
        with theirs, log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                process_group=0,  # so that all its children can be killed, and Ctrl-C reaches the driver only
                env=self._environment(),
            )
        worker = Process(name, process, ours, log, self._parcel)
        self._workers.append(worker)
        return worker

    def wait(self, seconds: float) -> Sequence[News]:
        self._workers = [worker for worker in self._workers if not worker.connection.closed]
        for worker in self._workers:
            worker.forget_long_output()
        workers = {worker.connection: worker for worker in self._workers}
        return [self._hear(workers[connection]) for connection in wait(list(workers), seconds)]  # type: ignore[index]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.kill()  # all at once, as a large process takes long to end
        for worker in self._workers:
            worker.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _hear(self, worker: Process) -> News:
        try:
            kind, content = worker.connection.recv()
        except (EOFError, OSError):
            kind, content = "died", {}
        if kind == "ready":
            return News(worker, "ready", facts=content)
        if kind == "answer":
            return News(worker, "answer", content, spent=is_spent(content))
        self._bury(worker)
        return News(worker, "died", cause=content.get("error") or worker.last_words(), facts=content)

    def _bury(self, worker: Process) -> None:
        try:
            worker.process.wait(timeout=5)  # for its exit code; the connection closes a moment earlier
        except subprocess.TimeoutExpired:
            worker.process.kill()  # it closed the connection but did not end
        worker.kill()

    def _environment(self) -> dict[str, str]:
        """The environment: the number of threads, so that libraries start no more, and the driver's module paths."""
        threads = str(max(1, int(self._cpus)))
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        return {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONPATH": path}


def _sweep() -> None:
    """Removes the files of drivers that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not _runs(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
