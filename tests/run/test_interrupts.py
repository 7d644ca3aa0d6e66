"""SIGINT and SIGTERM: out in good order within ten seconds, and nothing is lost whatever the moment."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from commands import (
    STARTUP_SECONDS,
    assert_same_run,
    children,
    evaluations_in,
    finish,
    runs,
    start,
    wait_until,
    write_job,
)

from autoprune.run.journal import read_journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

INTERRUPTS = 10
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
SLOW = """
import time
from autoprune.measure.fitness import classification

def fitness(model, batches):
    time.sleep(0.05)
    return classification(model, batches)
"""
STUCK = """
import hashlib
from pathlib import Path
from autoprune.measure.fitness import classification

calls = []

def fitness(model, batches):
    calls.append(1)
    if len(calls) > 5:
        Path(__file__).with_suffix(".stuck").touch()
        STAY
    return classification(model, batches)
"""
DEEP_IN_A_LIBRARY = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 10**10)'
DEAF = """
        import time
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
"""


@pytest.fixture(scope="module", params=["serial", "processes"])
def whole(request, tmp_path_factory):
    """The job file, its uninterrupted run, and how long that took."""
    folder = tmp_path_factory.mktemp("whole")
    job = write_job(folder, request.param, 80, SLOW)
    begun = time.perf_counter()
    finish(start("search", job, "--out", folder / "run"))
    return job, folder / "run", time.perf_counter() - begun


def interrupt(process, signum):
    """Sends a signal; how long the process then took, and what it said. Its children have ended, too."""
    workers = children(process.pid)
    sent = time.monotonic()
    process.send_signal(signum)
    _, errors = process.communicate(timeout=30)
    seconds = time.monotonic() - sent
    assert process.returncode == CODES[signum], errors
    assert wait_until(lambda: not any(map(runs, workers)), 5)
    return seconds, errors


def test_runs_interrupted_at_random_moments_end_in_good_order_and_resume_to_the_same_front(whole, tmp_path):
    job, uninterrupted, seconds = whole
    rng = np.random.default_rng(1)
    interrupted = number = 0
    longest = 0.0
    while interrupted < INTERRUPTS:
        run = tmp_path / str(number)
        process = start("resume", run) if (run / "job.yaml").exists() else start("search", job, "--out", run)
        assert wait_until(lambda process=process: signals_are_caught(process), STARTUP_SECONDS)
        try:
            process.wait(timeout=rng.uniform(0.1, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            signum = list(CODES)[interrupted % 2]
            known = evaluations_in(run)
            took, errors = interrupt(process, signum)
            longest = max(longest, took)
            interrupted += 1
            assert known <= evaluations_in(run)
            assert ("autoprune resume" in errors) == (run / "job.yaml").exists()
            assert not (run / "journal.owner").exists()
            assert errors.startswith("interrupted\n"), errors
            if len(known) not in (0, 80) and evaluations_in(run) != known:
                assert read_journal(run / "journal.jsonl")[-1]["kind"] == "end"
        else:
            finish(process)
            assert_same_run(run, uninterrupted)
            number += 1
    if (tmp_path / str(number) / "job.yaml").exists():
        finish(start("resume", tmp_path / str(number)))
        assert_same_run(tmp_path / str(number), uninterrupted)
    print(f"{INTERRUPTS} interrupts, the longest took {longest:.1f} s")
    assert longest < 10


def signals_are_caught(process):
    """Whether a process has begun to handle SIGTERM; before, it has nothing to lose."""
    if process.poll() is not None:
        return True
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return bool(caught & 1 << (signal.SIGTERM - 1))


def stuck(tmp_path, executor, stay):
    """A run that is in the middle of an evaluation that does not end."""
    job = write_job(tmp_path, executor, 80, STUCK.replace("STAY", stay))
    process = start("search", job, "--out", tmp_path / "run")
    assert wait_until((tmp_path / "fitness.stuck").exists, STARTUP_SECONDS)
    time.sleep(0.5)
    return process


def test_an_interrupt_of_a_search_that_waits_for_stuck_workers_ends_it_at_once(tmp_path):
    process = stuck(tmp_path, "processes", DEEP_IN_A_LIBRARY)
    seconds, errors = interrupt(process, signal.SIGTERM)
    assert seconds < 5
    assert "autoprune resume" in errors
    assert read_journal(tmp_path / "run" / "journal.jsonl")[-1]["kind"] == "end"


@pytest.mark.parametrize("stay", [DEEP_IN_A_LIBRARY, DEAF])
def test_what_does_not_listen_is_ended_after_ten_seconds(tmp_path, stay):
    process = stuck(tmp_path, "serial", stay)
    known = evaluations_in(tmp_path / "run")
    seconds, _ = interrupt(process, signal.SIGTERM)
    assert 8 < seconds < 10
    assert evaluations_in(tmp_path / "run") == known


@pytest.mark.parametrize("stay", [DEEP_IN_A_LIBRARY, DEAF])
def test_a_second_interrupt_ends_it_at_once_and_nothing_is_lost(tmp_path, stay):
    process = stuck(tmp_path, "serial", stay)
    known = evaluations_in(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    seconds, _ = interrupt(process, signal.SIGINT)
    assert seconds < 2
    assert evaluations_in(tmp_path / "run") == known


def test_a_second_interrupt_of_a_search_on_workers_leaves_none_of_them(tmp_path):
    process = stuck(tmp_path, "processes", DEEP_IN_A_LIBRARY)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    interrupt(process, signal.SIGINT)
    assert wait_until(lambda: not any(map(runs, workers)), 5)
