"""Runs on a Ray cluster as a user starts them: killed, told to stop, submitted, with nodes that come and go."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from autoprune.run import read_evaluations
from autoprune.run.records.journal import read_journal

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900, method="thread")]

KILLS = 20
ROOT = Path(__file__).parents[3]
JOB = """
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "autoprune.data:digits"}
space: {version: 1, units: [{match: "*", levels: 8}]}
objectives: [{name: accuracy, direction: max}, {name: macs, direction: min}]
search: {searcher: auto, evaluations: 100, front_size: 8, seed: 7}
run: {executor: ray, address: ADDRESS, threads: 1, deterministic: true}
"""
SLOW = """
import os
import time
from autoprune.measure.fitness import classification

def fitness(model, batches, **options):
    time.sleep(0.2)
    return classification(model, batches, **options)
"""


@pytest.fixture
def job_file(cluster, tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("ADDRESS", cluster.address))
    return path


@pytest.fixture
def slow_job(job_file, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    job_file.write_text(job_file.read_text() + 'fitness: {call: "slow.py:fitness"}\n')
    return job_file


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """The same search in one process."""
    folder = tmp_path_factory.mktemp("serial")
    text = JOB.replace("executor: ray, address: ADDRESS", "executor: serial")
    (folder / "job.yaml").write_text(text)
    assert finish(start("search", folder / "job.yaml", "--out", folder / "run"))[0] == 0
    return folder / "run"


@pytest.fixture
def nodes(cluster):
    """Adds a node with so many cpus; those that are still there in the end are removed."""
    added = []

    def add(cpus):
        added.append(cluster.add_node(num_cpus=cpus))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


def start(*arguments):
    command = [sys.executable, "-m", "autoprune", *map(str, arguments), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """Exit code and what was said on standard error."""
    _, errors = process.communicate()
    return process.returncode, errors


def events(run, name=None):
    path = run / "events.jsonl"
    told = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [event for event in told if name in (None, event["event"])]


def wait_for(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def parcels():
    return set(Path(tempfile.gettempdir()).glob(f"autoprune-{os.getuid()}-*.parcel"))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_deterministic_run_has_the_front_of_a_serial_one_and_is_quiet(job_file, serial, tmp_path):
    code, errors = finish(start("search", job_file, "--out", tmp_path / "run"))
    assert (code, errors) == (0, "")
    assert (tmp_path / "run" / "front.csv").read_bytes() == (serial / "front.csv").read_bytes()
    assert (tmp_path / "run" / "front.json").read_bytes() == (serial / "front.json").read_bytes()
    assert len(events(tmp_path / "run", "built")) == 8, "the workers have built the front"


def test_twenty_kills_of_the_driver_leave_the_front_of_the_uninterrupted_run(job_file, serial, start_warm, tmp_path):
    rng = np.random.default_rng(0)
    killed = number = 0
    while killed < KILLS:
        run = tmp_path / str(number)
        known = evaluations(run)
        process = start_warm("resume", run) if known is not None else start_warm("search", job_file, "--out", run)
        aim = len(known or ()) + rng.integers(0, 25)  # so many evaluations, and then some time
        while process.poll() is None and len(evaluations(run) or ()) < aim:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            killed += 1
        process.kill()
        process.communicate()
        if process.returncode == 0:
            assert_same_run(run, serial)
            number += 1
        else:
            assert set(known or ()) <= set(evaluations(run) or ())
    last = tmp_path / str(number)
    if evaluations(last) is not None:
        assert finish(start("resume", last))[0] == 0
        assert_same_run(last, serial)
    for run in tmp_path.glob("[0-9]*"):
        assert not any(alive(ready["pid"]) for ready in events(run, "worker_ready"))


def evaluations(run):
    """What the journal of a run that may be just starting holds; None where there is nothing to resume."""
    return [e.candidate for e in read_evaluations(run)] if (run / "journal.jsonl").exists() else None


def assert_same_run(run, whole):
    assert (run / "front.csv").read_bytes() == (whole / "front.csv").read_bytes()
    assert [e.candidate for e in read_evaluations(run)] == [e.candidate for e in read_evaluations(whole)]


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_run_in_good_order_within_ten_seconds(slow_job, tmp_path, signum, code):
    run = tmp_path / "run"
    before = parcels()
    process = start("search", slow_job, "--out", run)
    wait_for(lambda: len(events(run, "evaluation")) >= 3)
    begun = time.monotonic()
    process.send_signal(signum)
    returned, errors = finish(process)
    assert time.monotonic() - begun < 10
    assert returned == code, errors
    assert f"continue with: autoprune resume {run}" in errors
    assert parcels() == before
    last = read_journal(run / "journal.jsonl")[-1]
    assert last["kind"] == "end"
    wait_for(lambda: not any(alive(ready["pid"]) for ready in events(run, "worker_ready")), 10)


def test_actors_of_a_driver_that_was_killed_are_gone_within_seconds(slow_job, tmp_path):
    run = tmp_path / "run"
    process = start("search", slow_job, "--out", run)
    wait_for(lambda: len(events(run, "evaluation")) >= 2)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(alive(ready["pid"]) for ready in events(run, "worker_ready")), 10)


def test_nodes_that_leave_cost_what_was_in_flight_and_nodes_that_come_are_used(cluster, nodes, slow_job, tmp_path):
    run = tmp_path / "run"
    leaving, _ = nodes(1), nodes(1)
    slow = tmp_path / "slow"  # a second for each evaluation until the new node is used, however long it takes to start
    slow.touch()
    slow_job.with_name("slow.py").write_text(SLOW.replace("0.2", f"os.path.exists({str(slow)!r})"))
    process = start("search", slow_job, "--out", run, "--set", "search.evaluations=200")
    wait_for(lambda: len({ready["node"] for ready in events(run, "worker_ready")}) == 3)
    wait_for(lambda: len(events(run, "evaluation")) >= 20)
    gone = [ready["worker"] for ready in events(run, "worker_ready") if ready["node"] == leaving.node_id]
    cluster.remove_node(leaving, allow_graceful=False)
    coming = nodes(2)

    def on_new():
        return {ready["worker"] for ready in events(run, "worker_ready") if ready["node"] == coming.node_id}

    wait_for(lambda: len(on_new()) == 2 and on_new() & {event["worker"] for event in events(run, "evaluation")})
    slow.unlink()
    code, errors = finish(process)
    assert code == 0, errors
    keys = [tuple(e.candidate.levels) for e in read_evaluations(run) if e.ok]
    assert len({*keys}) == 200
    assert len(events(run, "evaluation")) == 200
    assert [lost["worker"] for lost in events(run, "worker_lost") if lost["cause"].startswith("died")] == gone
    assert len(events(run, "retry")) <= 1
    assert len(on_new()) == 2


def test_a_job_is_submitted_with_its_code_and_leaves_its_front(cluster, tmp_path):
    code, run = tmp_path / "code", tmp_path / "run"
    code.mkdir()
    (code / "mine.py").write_text(SLOW.replace("0.2", "0.0"))
    job = JOB.replace("executor: ray, address: ADDRESS, ", "") + 'fitness: {call: "mine:fitness"}\n'
    (code / "job.yaml").write_text(job)
    settings = ["--set", "run.executor=ray", "--set", "run.address=auto", "--set", "search.evaluations=30"]
    driver = [sys.executable, "-m", "autoprune", "search", "job.yaml", *settings, "--plain", "--out", run]
    address = f"http://{cluster.head_node.webui_url}"
    submit = [Path(sys.executable).with_name("ray"), "job", "submit", "--address", address, "--working-dir", code, "--"]
    for _ in range(30):
        submitted = subprocess.run([*submit, *driver], capture_output=True, text=True)
        if "No available agent" not in submitted.stderr:  # the node's agent starts after the node
            break
        time.sleep(2)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert (run / "front.csv").exists()
    assert {event["event"] for event in events(run)} >= {"worker_ready", "evaluation"}


def test_a_client_elsewhere_runs_a_job_through_the_head_of_the_cluster(cluster, job_file, serial, tmp_path):
    port = cluster.head_node._ray_params.ray_client_server_port
    address = f"ray://127.0.0.1:{port}"
    code, errors = finish(start("search", job_file, "--set", f"run.address={address}", "--out", tmp_path / "run"))
    assert code == 0, errors
    assert (tmp_path / "run" / "front.csv").read_bytes() == (serial / "front.csv").read_bytes()


def test_without_ray_the_error_names_what_to_install(job_file, tmp_path):
    code = "import sys; sys.modules['ray'] = None; from autoprune.cli import main; main()"
    command = [sys.executable, "-c", code, "search", str(job_file), "--quiet", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "ray is not installed. Install it with: pip install 'autoprune[cluster]'" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_module_that_only_the_driver_has_ends_the_run_before_its_search(job_file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "only_here.py").write_text(SLOW.replace("0.2", "0.0"))
    job_file.write_text(job_file.read_text() + 'fitness: {call: "only_here:fitness"}\n')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "mine"), str(ROOT)])}
    command = [sys.executable, "-m", "autoprune", "search", str(job_file), "--quiet", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert "No module named 'only_here'" in done.stderr
    assert "run.runtime_env" in done.stderr
    assert not (tmp_path / "run").exists()
    with_it = ["--set", f"run.runtime_env={{working_dir: {tmp_path / 'mine'}}}", "--set", "search.evaluations=10"]
    done = subprocess.run([*command, *with_it], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
