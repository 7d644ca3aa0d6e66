"""Jobs submitted to a Ray of one's own, with and without the token that Ray writes into the home folder."""

import http.client
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import wait_until
from tiny import free_ports

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600, method="thread")]

RAY = str(Path(sys.executable).with_name("ray"))
TOKENS = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
PORTS = ("port", "dashboard-port", "dashboard-agent-listen-port", "ray-client-server-port")
STARTUP_SECONDS = 180  # on a machine with much else to do
JOB_SECONDS = 120


def fresh(home, **more):
    """The environment of an account on which nothing is set for Ray."""
    kept = {name: value for name, value in os.environ.items() if name not in TOKENS}
    return {**kept, "HOME": str(home), "RAY_worker_niceness": "0", **more}


@contextmanager
def head(environment):
    """The address for jobs of a `ray start --head` that is ready for them, which is gone on leaving.

    It has ports of its own: another Ray of this machine may listen on the usual ones, and an agent that finds its port
    taken goes on without taking jobs.
    """
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        options = [f"--{name}={port}" for name, port in ports.items()]
        workers = ["--min-worker-port=0", "--max-worker-port=0"]  # any port that is free
        command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--temp-dir={folder}", *options, *workers]
        output = Path(folder) / "output"
        with output.open("w") as file:
            process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=file, stderr=file)
        try:
            wait_until(lambda: process.poll() is not None or is_ready(ports), STARTUP_SECONDS)
            assert process.poll() is None, output.read_text()
            assert is_ready(ports), output.read_text() + agent_log(folder)
            yield f"http://127.0.0.1:{ports['dashboard-port']}"
        finally:
            end(process)


def is_ready(ports):
    """Whether the dashboard answers, be it that it wants a token, and the agent that starts the jobs does."""
    dashboard, agent = ports["dashboard-port"], ports["dashboard-agent-listen-port"]
    return status(dashboard, "/api/version") in (200, 401) and status(agent, "/api/local_raylet_healthz") == 200


def status(port, path):
    """The status with which a server of this machine answers; None without an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def agent_log(folder):
    logs = sorted(Path(folder).glob("session_2*/logs/dashboard_agent.*"))
    return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def run(command, environment):
    """Exit code and what was said."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "timeout": JOB_SECONDS}
    done = subprocess.run(command, env=environment, text=True, check=False, **options)
    return done.returncode, done.stdout


def submit(address, environment, folder):
    """The result of a job that asks autoprune for its version."""
    driver = [sys.executable, "-m", "autoprune", "--version"]
    return run([RAY, "job", "submit", "--address", address, "--working-dir", str(folder), "--", *driver], environment)


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
    init = "import ray; ray.init('local', num_cpus=1, include_dashboard=False); ray.shutdown()"
    code, said = run([sys.executable, "-c", init], environment)
    assert code == 0, said
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
        code, said = submit(address, fresh(elsewhere, **told), folder)
        assert code == 0, said


def test_with_a_token_a_cluster_started_without_it_takes_jobs_as_they_are(tmp_path, folder):
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 32)
    environment = fresh(tmp_path)
    with head({**environment, "RAY_AUTH_MODE": "disabled"}) as address:
        code, said = submit(address, {**environment, "RAY_AUTH_MODE": "disabled"}, folder)
    assert code == 0, said
