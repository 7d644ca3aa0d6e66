"""SIGINT and SIGTERM: out in good order within ten seconds, and nothing is lost whatever the moment."""

import signal
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
    let_run,
    runs,
    start,
    wait_until,
    write_job,
)

from autoprune.run.records.journal import read_journal

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

INTERRUPTS = 6
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
DEEP_IN_A_LIBRARY = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)'
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
    """The job file and its uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    job = write_job(folder, request.param, 80, SLOW)
    finish(start("search", job, "--out", folder / "run"))
    return job, folder / "run"


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
    job, uninterrupted = whole
    rng = np.random.default_rng(1)
    interrupted = number = 0
    took = []
    while interrupted < INTERRUPTS:
        run = tmp_path / str(number)
        process = start("resume", run) if (run / "job.yaml").exists() else start("search", job, "--out", run)
        if let_run(process, run, rng.integers(1, 100)):
            time.sleep(rng.uniform(0, 0.3))
            known = evaluations_in(run)
            seconds, errors = interrupt(process, list(CODES)[interrupted % 2])
            took.append(seconds)
            interrupted += 1
            assert errors == f"interrupted\nAll measurements are kept; continue with: autoprune resume {run}\n"
            assert known <= evaluations_in(run)
            assert read_journal(run / "journal.jsonl")[-1]["kind"] == "end"
            assert not (run / "journal.owner").exists()
        else:
            finish(process)
            assert_same_run(run, uninterrupted)
            number += 1
    finish(start("resume", tmp_path / str(number)))
    assert_same_run(tmp_path / str(number), uninterrupted)
    assert max(took) < 10


@pytest.mark.parametrize("signum", list(CODES))
def test_an_interrupt_before_there_is_a_run_leaves_none(tmp_path, signum):
    process = start("search", write_job(tmp_path), "--out", tmp_path / "run")
    assert wait_until(lambda: signals_are_caught(process), STARTUP_SECONDS)
    seconds, errors = interrupt(process, signum)
    assert seconds < 10
    assert errors == "interrupted\n"
    assert not (tmp_path / "run").exists()


def signals_are_caught(process):
    """Whether a process has begun to handle SIGTERM; before, it has nothing to lose."""
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
    assert seconds < 10
    assert "autoprune resume" in errors
    assert read_journal(tmp_path / "run" / "journal.jsonl")[-1]["kind"] == "end"


@pytest.mark.parametrize("stay", [DEEP_IN_A_LIBRARY, DEAF])
def test_what_does_not_listen_is_ended_after_ten_seconds(tmp_path, stay):
    process = stuck(tmp_path, "serial", stay)
    known = evaluations_in(tmp_path / "run")
    seconds, _ = interrupt(process, signal.SIGTERM)
    assert 7 < seconds < 10
    assert evaluations_in(tmp_path / "run") == known


@pytest.mark.parametrize("stay", [DEEP_IN_A_LIBRARY, DEAF])
def test_a_second_interrupt_ends_it_at_once_and_nothing_is_lost(tmp_path, stay):
    process = stuck(tmp_path, "serial", stay)
    known = evaluations_in(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    seconds, _ = interrupt(process, signal.SIGINT)
    assert seconds < 5
    assert evaluations_in(tmp_path / "run") == known


def test_a_second_interrupt_of_a_search_on_workers_leaves_none_of_them(tmp_path):
    process = stuck(tmp_path, "processes", DEEP_IN_A_LIBRARY)
    workers = children(process.pid)
    assert len(workers) == 2
    process.send_signal(signal.SIGINT)
    interrupt(process, signal.SIGINT)
    assert wait_until(lambda: not any(map(runs, workers)), 5)
