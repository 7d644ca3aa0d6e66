"""Runs that are killed with SIGKILL, as often as a user might be unlucky: the same front in the end."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from autoprune.run import read_evaluations

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

KILLS = 20
ROOT = Path(__file__).parents[2]
JOB = """
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "autoprune.data:digits"}
space: {version: 1, units: [{match: "*", levels: 8}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
search: {searcher: auto, evaluations: 150, seed: 7}
run: {threads: 1}
"""


def start(*arguments):
    command = [sys.executable, "-m", "autoprune", *map(str, arguments), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, errors = process.communicate()
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The uninterrupted run, and how long its search took."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "job.yaml").write_text(JOB)
    begun = time.perf_counter()
    finish(start("search", folder / "job.yaml", "--out", folder / "run"))
    return folder, time.perf_counter() - begun


def test_twenty_kills_at_random_moments_leave_the_front_of_the_uninterrupted_run(whole, tmp_path):
    folder, seconds = whole
    rng = np.random.default_rng(0)
    killed = number = 0
    while killed < KILLS:
        run = tmp_path / str(number)
        again = (run / "job.yaml").exists()
        process = start("resume", run) if again else start("search", folder / "job.yaml", "--out", run)
        try:
            process.wait(timeout=rng.uniform(0.3, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            known = evaluations_in(run)
            process.kill()
            process.communicate()
            killed += 1
            assert known <= evaluations_in(run)
        else:
            finish(process)
            assert_same_run(run, folder / "run")
            number += 1
    last = tmp_path / str(number)
    if (last / "job.yaml").exists():
        finish(start("resume", last))
        assert_same_run(last, folder / "run")


def assert_same_run(run, whole):
    assert (run / "front.csv").read_bytes() == (whole / "front.csv").read_bytes()
    assert [e.candidate for e in read_evaluations(run)] == [e.candidate for e in read_evaluations(whole)]


def evaluations_in(run):
    """What the journal of a run that may be just starting holds."""
    return {e.candidate for e in read_evaluations(run)} if (run / "journal.jsonl").exists() else set()


def test_a_second_driver_on_a_live_run_is_refused(whole, tmp_path):
    folder, _ = whole
    first = start("search", folder / "job.yaml", "--out", tmp_path / "run")
    while not (tmp_path / "run" / "journal.owner").exists():
        time.sleep(0.05)
    second = start("resume", tmp_path / "run")
    _, errors = second.communicate()
    assert second.returncode == 1
    assert f"process {first.pid} on" in errors
    finish(first)
