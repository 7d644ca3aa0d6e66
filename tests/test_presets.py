"""Published searches as files: every preset loads into the quick start's job, and some are run."""

from pathlib import Path

import pytest
import yaml

from autoprune.config import load
from autoprune.run import search
from autoprune.searchers import SEARCHERS

ROOT = Path(__file__).parents[1]
PRESETS = sorted((ROOT / "configs" / "presets").glob("*.yaml"))

MODEL = """\
import torch
from autoprune.data import Data
from autoprune.zoo.resnet import ResNet

def model():
    torch.manual_seed(0)
    return ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()

def data():
    x, y = torch.randn(120, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(120) % 4
    return Data.from_arrays((x[:40],), (x[40:80], y[40:80]), (x[80:], y[80:]), batch_size=20)
"""


def quickstart(*settings):
    return load(ROOT / "configs" / "quickstart.yaml", settings)


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_says_what_the_quick_starts_search_is(at_root, preset):
    spec = quickstart(f"search={preset}")
    written = yaml.safe_load(preset.read_text())
    named = written["searcher"]
    assert spec.search.searcher.name == (named if isinstance(named, str) else named["name"])
    assert spec.search.evaluations == written["evaluations"]
    assert spec.search.guide == written.get("guide", "kl")


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_begins_with_the_command_that_runs_it_and_links_its_source(preset):
    first, *rest = preset.read_text().splitlines()
    assert first.startswith(f"# autoprune search JOB.yaml --set search=configs/presets/{preset.name}")
    assert any("https://" in line for line in rest if line.startswith("#"))


def named_settings(preset):
    """The settings of the command in the first comment."""
    comment = preset.read_text().partition("\n#\n")[0]
    return [part.split()[0] for part in comment.split("--set ")[1:]]


# presets with further settings, but for the one whose guide is a measure of classifiers alone
FOR_LANGUAGE = [p for p in PRESETS if len(named_settings(p)) > 1 and "guide: mse" not in p.read_text()]


@pytest.mark.parametrize("preset", FOR_LANGUAGE, ids=lambda path: path.stem)
def test_the_further_settings_of_a_command_fit_a_language_model(at_root, preset):
    settings = named_settings(preset)
    spec = load("configs/llm.yaml", ["model.path=here", "data.text=here.txt", *settings])
    assert {key.partition("=")[0] for key in settings} <= {"search", "space", "criterion", "compensation"}
    for key, _, value in (setting.partition("=") for setting in settings):
        if key == "space":
            written = yaml.safe_load((ROOT / value).read_text())["units"]
            assert [rule.match for rule in spec.space.units] == [rule["match"] for rule in written]
        elif key == "criterion":
            assert spec.criterion.name == value
        elif key == "compensation":
            assert spec.compensation == value


def test_there_is_a_preset_for_most_searchers():
    named = [yaml.safe_load(preset.read_text())["searcher"] for preset in PRESETS]
    used = {entry if isinstance(entry, str) else entry.get("name") for entry in named}
    assert {"random", "genetic", "bees", "legr", "greedy", "additive", "evolution", "annealing"} <= used <= {*SEARCHERS}


@pytest.mark.parametrize("name", ["eagleeye", "metapruning", "legr", "alds", "nsga3"])
def test_a_preset_runs_on_a_small_network(at_root, tmp_path, name):
    (tmp_path / "tiny.py").write_text(MODEL)
    spec = quickstart(
        f"search=configs/presets/{name}.yaml",
        "search.evaluations=6",
        f"model={{call: '{tmp_path}/tiny.py:model'}}",
        f"data={{call: '{tmp_path}/tiny.py:data'}}",
        "compensation=none",
    )
    result = search(spec.resolve(), None)
    assert len({e.candidate for e in result.evaluations}) == 6
    assert len(result.members) >= 1
