"""The built wheel, alone: what it contains is enough to run a job that comes with it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import autoprune

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built as an installer builds it, with the build backend that pyproject.toml names."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, timeout=100)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_has_the_version_of_the_package_and_every_shipped_file(wheel):
    assert wheel.name == f"autoprune-{autoprune.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    shipped = {name.removeprefix("autoprune/_shipped/") for name in names if name.endswith(".yaml")}
    kept = [path for folder in ("configs", "search_spaces") for path in (ROOT / folder).rglob("*.yaml")]
    assert shipped == {path.relative_to(ROOT).as_posix() for path in kept}
    assert {name.split("/")[0] for name in names} == {"autoprune", f"autoprune-{autoprune.__version__}.dist-info"}


@pytest.mark.slow
def test_a_shipped_job_runs_from_the_installed_wheel_in_an_empty_folder(wheel, tmp_path):
    site, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, timeout=100)
    settings = ["search=configs/presets/nsga2.yaml", "search.evaluations=8", "compensation=none"]
    command = [sys.executable, "-m", "autoprune", "search", "configs/quickstart.yaml", "--quiet"]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for name in ("configs/quickstart.yaml", "configs/presets/nsga2.yaml", "search_spaces/channels.yaml"):
        path = site / "autoprune" / "_shipped" / name
        assert f"{name}: taken from the files that come with autoprune, {path}" in done.stderr.splitlines()
    assert (empty / "results" / "quickstart" / "front.csv").is_file()
