"""A recovery by two processes that accelerate starts."""

import os
import subprocess
import sys

import pytest
from commands import ROOT, finish, start, write_job

from autoprune.errors import ConfigError
from autoprune.run import read_front, read_recovered
from autoprune.train.recovery.processes import launched


@pytest.mark.slow
def test_two_processes_train_one_network_and_one_of_them_writes(tmp_path):
    pytest.importorskip("accelerate")
    run = tmp_path / "run"
    finish(start("search", write_job(tmp_path, evaluations=20), "--out", run))
    options = ["--pick", "#1", "--epochs", "4", "--set", "recover.lr=0.05"]
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--module", "autoprune"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, *launch, "recover", run, *options, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1 recovered network") == 1
    (found,), before = read_recovered(run), read_front(run)[0]
    assert found.recovered["best_step"] > 0
    assert found.select["accuracy"] > before.select["accuracy"]
    assert (tmp_path / "out" / "recipe.json").is_file()


def test_several_processes_without_accelerate_are_a_sentence(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ConfigError, match=r"expected accelerate, .* pip install 'autoprune\[recover\]'"):
        launched()
