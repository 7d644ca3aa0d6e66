"""Runs that are killed with SIGKILL, as often as a user might be unlucky: the same front in the end."""

import time

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
    worker_folders,
    write_job,
)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

KILLS = 20


@pytest.fixture(scope="module", params=["serial", "processes"])
def whole(request, tmp_path_factory):
    """The job file and its uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    job = write_job(folder, request.param)
    finish(start("search", job, "--out", folder / "run"))
    return job, folder / "run"


def test_twenty_kills_at_random_moments_leave_the_front_of_the_uninterrupted_run(whole, start_warm, tmp_path):
    job, uninterrupted = whole
    rng = np.random.default_rng(0)
    killed = number = 0
    while killed < KILLS:
        run = tmp_path / str(number)
        again = (run / "job.yaml").exists()
        process = start_warm("resume", run) if again else start_warm("search", job, "--out", run)
        if let_run(process, run, rng.integers(1, 70)):
            time.sleep(rng.uniform(0, 0.3))
            known = evaluations_in(run)
            process.kill()
            process.communicate()
            killed += 1
            assert known <= evaluations_in(run)
        else:
            finish(process)
            assert_same_run(run, uninterrupted)
            number += 1
    last = tmp_path / str(number)
    finish(start("resume", last))
    assert_same_run(last, uninterrupted)


def test_a_second_driver_on_a_live_run_is_refused_and_may_go_on_when_the_first_was_killed(whole, tmp_path):
    job, uninterrupted = whole
    first = start("search", job, "--out", tmp_path / "run")
    assert wait_until(lambda: (tmp_path / "run" / "journal.owner").exists(), STARTUP_SECONDS)
    second = start("resume", tmp_path / "run")
    _, errors = second.communicate()
    assert second.returncode == 1
    assert f"process {first.pid} on" in errors
    first.kill()
    first.communicate()
    finish(start("resume", tmp_path / "run"))
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_killed_driver_takes_its_workers_along_and_the_next_one_tidies_up(tmp_path):
    job = write_job(tmp_path, "processes")
    place = {"TMPDIR": str(tmp_path)}
    driver = start("search", job, "--out", tmp_path / "run", env=place)
    assert wait_until(lambda: len(evaluations_in(tmp_path / "run")) > 5, STARTUP_SECONDS)
    workers = children(driver.pid)
    assert len(workers) == 2
    driver.kill()
    driver.communicate()
    assert wait_until(lambda: not any(map(runs, workers)), 5)
    assert len(worker_folders(tmp_path)) == 1
    finish(start("resume", tmp_path / "run", env=place))
    assert worker_folders(tmp_path) == []
