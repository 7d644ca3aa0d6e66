"""An option of scoring is declared in one file: job files, the Python door and job.yaml take it from there."""

import inspect
import subprocess
import sys

import pytest

from autoprune.core.options import declared_options
from autoprune.measure import settings
from autoprune.measure.settings import Scoring

DESCRIPTION = "        batch_norm_examples: number of"
FIELD = "    batch_norm_examples: Annotated["
PROGRAM = """
import importlib.util, sys

name, path, job = "autoprune.measure.settings", *sys.argv[1:]
made = importlib.util.spec_from_file_location(name, path)
sys.modules[name] = importlib.util.module_from_spec(made)
made.loader.exec_module(sys.modules[name])

import autoprune
from autoprune.api.document import document_of
from autoprune.config import load
from autoprune.errors import ConfigError
from autoprune.run.settings import REFUSED

assert "scoring.passes" in REFUSED
assert load(job).resolve().scoring == autoprune.Scoring()
spec = load(job, ["search.passes=3"])
assert spec.document()["search"]["passes"] == 3
assert spec.resolve().scoring == autoprune.Scoring(passes=3)
assert document_of(spec.resolve())["search"]["passes"] == 3
for wrong in (lambda: load(job, ["search.passes=0"]), lambda: autoprune.Scoring(passes=0)):
    try:
        wrong()
    except ConfigError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_line_in_the_declaration_is_all_that_a_new_option_needs(tmp_path):
    text = inspect.getsource(settings)
    text = text.replace(DESCRIPTION, f"        passes: number of passes over the examples.\n{DESCRIPTION}")
    text = text.replace(FIELD, f'    passes: Annotated[int, Option("search", least=1)] = 2\n{FIELD}')
    (tmp_path / "settings.py").write_text(text)
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "settings.py"), "configs/quickstart.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    in_file, in_python = done.stdout.splitlines()
    assert "search.passes: expected at least 1 (number of passes over the examples), got 0" in in_file
    assert in_python == "passes: expected a whole number from 1, got 0"


def test_every_option_says_what_it_is():
    assert {
        option.name: option.description for option in declared_options(Scoring) if len(option.description) < 20
    } == {}
