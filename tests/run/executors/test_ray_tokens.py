"""Jobs submitted to a Ray of one's own, with and without the token that Ray writes into the home folder."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import free_port

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900, method="thread")]

RAY = str(Path(sys.executable).with_name("ray"))
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")


def fresh(home, **more):
    """The environment of an account on which nothing is set for Ray."""
    kept = {name: value for name, value in os.environ.items() if name not in TOKENS}
    return {**kept, "HOME": str(home), "RAY_worker_niceness": "0", **more}


@contextmanager
def head(environment):
    """The address for jobs of a `ray start --head`, which is gone on leaving."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        port, jobs = free_port(), free_port()
        ports = [f"--port={port}", f"--dashboard-port={jobs}", f"--ray-client-server-port={free_port()}"]
        command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}", *ports]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
        try:
            yield f"http://127.0.0.1:{jobs}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def submit(address, environment, folder):
    """The result of a job that asks autoprune for its version, submitted when the head is ready for jobs."""
    driver = [sys.executable, "-m", "autoprune", "--version"]
    command = [RAY, "job", "submit", "--address", address, "--working-dir", str(folder), "--", *driver]
    for _ in range(40):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if not any(word in said for word in ("No available agent", "Failed to connect", "ConnectionError", "refused")):
            break
        time.sleep(1)
    return done.returncode, said


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "job.yaml").write_text("version: 1\n")
    return tmp_path / "code"


def test_without_a_token_a_job_is_submitted_as_it_is(tmp_path, folder):
    environment = fresh(tmp_path)
    with head(environment) as address:
        code, said = submit(address, environment, folder)
    assert code == 0, said
    assert "autoprune " in said
    assert not (tmp_path / ".ray" / "auth_token").exists()


def test_with_a_token_a_job_is_submitted_in_token_mode(tmp_path, folder):
    environment = fresh(tmp_path)
    # a local Ray writes the token, as `executor: ray` with `address: local` starts one
    init = "import ray; ray.init(num_cpus=1, include_dashboard=False); ray.shutdown()"
    subprocess.run([sys.executable, "-c", init], env=environment, check=True, capture_output=True)
    token = tmp_path / ".ray" / "auth_token"
    assert token.exists()
    with head(environment) as address:
        code, said = submit(address, {**environment, "RAY_AUTH_MODE": "token"}, folder)
        assert code == 0, said
        assert "autoprune " in said
        code, said = submit(address, environment, folder)
        assert code != 0
        assert "401" in said or "Authentication required" in said or "Unauthorized" in said
        elsewhere = tmp_path / "elsewhere"  # another account, which is told the token
        elsewhere.mkdir()
        told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token.read_text()}
        assert submit(address, fresh(elsewhere, **told), folder)[0] == 0


def test_with_a_token_a_cluster_started_without_it_takes_jobs_as_they_are(tmp_path, folder):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 32)
    environment = fresh(tmp_path)
    with head({**environment, "RAY_AUTH_MODE": "disabled"}) as address:
        code, said = submit(address, {**environment, "RAY_AUTH_MODE": "disabled"}, folder)
    assert code == 0, said
