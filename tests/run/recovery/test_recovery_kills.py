"""A recovery that is killed with SIGKILL again and again ends with the bits of one that was not."""

import time
from functools import partial

import numpy as np
import pytest
from commands import STARTUP_SECONDS, finish, start, wait_until, write_job

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

KILLS = 4
SETTINGS = ("--set", "recover.evaluate=2", "--set", "recover.ema=0.9", "--set", "recover.optimizer=adamw")


def options(name):
    return ("--pick", "#1", "--steps", "120", "--name", name, *SETTINGS)


def ended_or_written(process, checkpoint, before):
    """Whether a process has ended, or has written the checkpoint since it was last changed at `before`."""
    return process.poll() is not None or (checkpoint.exists() and checkpoint.stat().st_mtime_ns > before)


def test_kills_at_random_moments_leave_the_bits_of_the_uninterrupted_recovery(tmp_path):
    run = tmp_path / "run"
    finish(start("search", write_job(tmp_path, evaluations=20), "--out", run))
    finish(start("recover", run, *options("whole")))
    rng = np.random.default_rng(0)
    checkpoint = run / "recovered" / "killed" / "checkpoint.safetensors"
    killed = 0
    while killed < KILLS:
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = start("recover", run, *options("killed"))
        assert wait_until(partial(ended_or_written, process, checkpoint, before), STARTUP_SECONDS)
        time.sleep(rng.uniform(0, 0.4))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        killed += 1
    assert killed >= 2
    finish(start("recover", run, *options("killed")))
    one, other = (
        (run / "recovered" / name / "network" / "weights.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert one == other
