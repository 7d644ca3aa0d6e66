"""A checkpoint folder and a text file in, a front out."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import autoprune
from autoprune import Data
from autoprune.cli import app
from autoprune.data import text
from autoprune.errors import ExportError
from autoprune.measure.fitness import language_model
from autoprune.pretrained import causal_lm, load_tokenizer
from autoprune.run import read_evaluations

PAGE = Path(__file__).parents[2] / "docs" / "language_models.md"
SMALL = {"length": 16, "calibrate": 20, "select": 20, "report": 20}
QUICK = ["search.evaluations=5", "search.front_size=3", "run.threads=1", "compensation=none"]


@pytest.fixture(scope="module")
def run(llama, story, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "llm"
    settings = [f"model.path={llama}", f"data.text={story}", *(f"data.{k}={v}" for k, v in SMALL.items()), *QUICK]
    command = ["search", "configs/llm.yaml", *(part for s in settings for part in ("--set", s)), "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    return out


def table(run):
    return list(csv.DictReader((run / "front.csv").read_text().splitlines()))


def perplexity(network, batches):
    """By the loss of transformers itself."""
    losses = []
    with torch.no_grad():
        for batch in batches:
            losses += [float(network(input_ids=row[None], labels=row[None]).loss) for row in batch.inputs[0]]
    return math.exp(sum(losses) / len(losses))


def test_a_checkpoint_and_a_text_give_a_front_whose_network_is_exported_and_loaded(run, llama, story, tmp_path):
    rows = table(run)
    assert len(rows) > 1
    assert float(rows[0]["macs_ratio"]) < 1
    small = CliRunner().invoke(app, ["export", str(run), "--pick", "macs<=0.9", "--out", str(tmp_path / "small")])
    assert small.exit_code == 0, small.output
    network = autoprune.load(causal_lm(llama), tmp_path / "small")
    data = text(story, llama, **SMALL)
    measured = [float(row["perplexity"]) for row in rows]
    assert any(math.isclose(perplexity(network, data.report), value, rel_tol=1e-5) for value in measured[:-1])
    assert math.isclose(perplexity(causal_lm(llama), data.report), measured[-1], rel_tol=1e-5)


def test_the_interval_of_each_perplexity_is_in_the_table(run):
    for row in table(run):
        assert float(row["perplexity_low"]) < float(row["perplexity"]) < float(row["perplexity_high"])


def test_the_lines_of_the_page_run(llama, story, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    sizes = ", ".join(f"{name}={value}" for name, value in SMALL.items())
    code = code.replace('"FOLDER"', f'"{llama}"').replace('"FILE"', f'"{story}"').replace("length=512", sizes)
    quick = 'evaluations=4, front_size=3, compensation="none", progress=False'
    names: dict[str, Any] = {}
    exec(code.replace("fitness=language_model)", f"fitness=language_model, {quick})"), names)
    dense = names["front"][-1]
    assert dense["kl"] == 0
    assert math.isclose(dense["perplexity"], perplexity(names["model"], names["data"].report), rel_tol=1e-5)
    small, whole = (sum(p.numel() for p in names[name].parameters()) for name in ("small", "model"))
    assert small < whole
    with pytest.raises(ExportError, match="got a pruned one, .* Export it with format 'transformers'"):
        names["small"].save_pretrained("small")
    names["model"].save_pretrained(tmp_path / "dense")


@pytest.mark.slow
def test_batches_of_several_lengths_with_padding_are_scored_by_every_candidate(llama, story, tmp_path):
    """Attention runs other code for them, with an attribute of its own that pruning must find."""
    lines, coder = story.read_text().splitlines(), load_tokenizer(llama)

    def batches(start, size=8):
        for at in range(start, start + 3 * size, size):
            yield coder(lines[at : at + size], padding=True, return_tensors="pt")

    data = Data.from_loaders(batches(0), batches(100), batches(200))
    assert len({batch.inputs[0].shape for batch in data.select}) > 1
    front = autoprune.search(
        causal_lm(llama, "bfloat16"), data, objectives=("perplexity", "macs"), fitness=language_model,
        rules=[{"match": "*heads*", "keep": [0.5]}], evaluations=8, front_size=2, progress=False, out=tmp_path / "run",
    )  # fmt: skip
    assert front[0]["macs_ratio"] < 1
    statuses = [found.status for found in read_evaluations(tmp_path / "run")]
    assert statuses == ["ok"] * len(statuses)
    assert len(statuses) > 2
