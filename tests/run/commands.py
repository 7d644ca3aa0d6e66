"""Runs of the command line in processes of their own, on the digits, for tests that kill and interrupt them."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoprune.run import read_evaluations
from autoprune.run.executors.processes import PREFIX

ROOT = Path(__file__).parents[2]
JOB = """
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "autoprune.data:digits"}
space: {version: 1, units: [{match: "*", levels: 8}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
search: {searcher: auto, evaluations: EVALUATIONS, front_size: 3, seed: 7}
run: {RUN}
"""
STARTUP_SECONDS = 300  # on a machine with much else to do
EXECUTORS = {
    "serial": "threads: 1, tune: off",
    "processes": "threads: 1, tune: off, executor: processes, workers: 2, deterministic: true",
}

started = []
warm = multiprocessing.get_context("forkserver")  # its processes are forked from one that has imported what is slow


def write_job(folder, executor="serial", evaluations=80, fitness=None):
    """The path of a job file; `fitness` is the source of a function of (model, batches)."""
    text = JOB.replace("EVALUATIONS", str(evaluations)).replace("RUN", EXECUTORS[executor])
    if fitness is not None:
        (folder / "fitness.py").write_text(fitness)
        text += 'fitness: {call: "fitness.py:fitness"}\n'
    (folder / "job.yaml").write_text(text)
    return folder / "job.yaml"


def start(*arguments, **options):
    """A command without progress, in a process whose errors can be read."""
    command = [sys.executable, "-m", "autoprune", *map(str, arguments), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, **options
    )
    started.append(process)
    return process


class WarmCommand:
    """The same command in a process that starts in a fraction of the time, for tests that start it many times."""

    def __init__(self, *arguments):
        descriptor, self._errors = tempfile.mkstemp()
        os.close(descriptor)
        given = [*map(str, arguments), "--quiet"], dict(os.environ), self._errors
        self._process = warm.Process(target=_run, args=given)
        self._process.start()
        started.append(self)

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def kill(self):
        self._process.kill()

    def communicate(self):
        self._process.join()
        errors = Path(self._errors).read_text()
        Path(self._errors).unlink()
        return "", errors


def _run(arguments, environment, errors):
    """What the process does."""
    from autoprune.cli import main

    os.dup2(os.open(errors, os.O_WRONLY), sys.stderr.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    os.environ.update(environment)
    sys.argv = ["autoprune", *arguments]
    main()


def end_all():
    """Ends what a test that failed has left."""
    while started:
        process = started.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors


def evaluations_in(run):
    """What the journal of a run that may be just starting holds."""
    return {e.candidate for e in read_evaluations(run)} if (run / "journal.jsonl").exists() else set()


def let_run(process, run, records):
    """Returns when a process has written so many records to the journal of its run, or has ended; whether it runs."""
    before = records_in(run)
    wait_until(lambda: process.poll() is not None or records_in(run) >= before + records, STARTUP_SECONDS)
    return process.poll() is None


def records_in(run):
    journal = run / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def assert_same_run(run, whole):
    assert (run / "front.csv").read_bytes() == (whole / "front.csv").read_bytes()
    assert [e.candidate for e in read_evaluations(run)] == [e.candidate for e in read_evaluations(whole)]


def children(pid):
    """The processes a process has started, those they have started included."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def runs(pid):
    """Whether a process is there and more than an entry for its parent to read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_with(name, value):
    """The command lines by process of those that have been started with a variable."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{name}={value}".encode() in (folder / "environ").read_bytes().split(b"\0") and runs(folder.name):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:  # it has just ended, or is somebody else's
            continue
    return found


def wait_until(true, seconds=10.0):
    """What `true` says as soon as it is true, or after so many seconds."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def worker_folders(folder):
    """What drivers left in a folder for temporary files."""
    return list(folder.glob(f"{PREFIX}*"))
