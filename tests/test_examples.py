"""The examples run, and what they print is true: compared with arithmetic by hand and with measurements of our own.

tests/test_readme.py runs examples/digits.py.
"""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import autoprune
from autoprune.data import digits
from autoprune.zoo import digits_resnet

EXAMPLES = Path(__file__).parents[1] / "examples"


def module(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def output(name, *arguments):
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def numbers(lines, pattern):
    """The numbers in each line that fits, with separators of thousands."""
    found = [re.fullmatch(pattern, line.strip()) for line in lines]
    return [tuple(float(text.replace(",", "")) for text in match.groups()) for match in found if match]


def front_of(lines):
    return numbers(lines, r"([\d.]+) of the MACs, accuracy ([\d.]+)")


def test_the_readme_of_the_examples_names_each_of_them():
    named = re.findall(r"^\| \[(\w+)\.py\]\(\1\.py\) \|", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_model_of_ones_own_keeps_its_accuracy_at_half_of_its_macs():
    lines = output("own_model", 30)
    front = numbers(lines, r"([\d,]+) MACs \(([\d.]+)\) ([\d.]+)")
    dense = 1 * 32 * 5 * 32 + 32 * 48 * 5 * 16 + 48 * 64 * 5 * 8 + 64 * 16  # inputs, outputs, kernel, places
    assert front[-1][:2] == (dense, 1)
    assert front[-1][2] > 0.9 > front[0][2]
    assert max(accuracy for _, share, accuracy in front if share <= 0.5) > front[-1][2] - 0.03
    a, b, c = map(int, re.findall(r"\d+", lines[-1]))
    assert 1 * a * 5 * 32 + a * b * 5 * 16 + b * c * 5 * 8 + c * 16 <= 0.25 * dense


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_cost_of_ones_own_is_what_the_built_network_needs():
    lines = output("own_cost", 40)
    front = numbers(lines, r"([\d,]+) bytes, accuracy ([\d.]+), ([\d.]+) of the weights")
    assert front[-1][0] == 3 * 16 * 64 * 4  # three feature maps of a block of the first stage
    (picked,) = numbers(lines, r"picked: +(\d+) bytes at ([\d.]+) of the weights")
    assert picked[0] <= front[-1][0] / 2 < picked[1] * front[-1][0]  # half of the memory, most of the parameters
    assert numbers(lines, r"measured: (\d+) bytes") == [picked[:1]]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_fitness_of_ones_own_is_reported_on_the_report_set():
    (dense, *front) = numbers(output("own_fitness", 30), r"(?:dense: )?([\d,]+) parameters, R squared (-?[\d.]+)")
    assert dense[0] == 11 * 64 + 65 * 64 + 65
    example = module("own_fitness")
    x, y = (tensor.double().numpy() for tensor in example.friedman(1000, 3))
    predicted = example.trained()(torch.tensor(x).float()).detach().double().numpy()
    assert dense[1] == pytest.approx(1 - np.mean((predicted - y) ** 2) / np.var(y), abs=2e-3)
    assert dense[1] > 0.9 > front[0][1]
    assert max(r2 for _, r2 in front) < 1 - 0.8 / np.var(y)  # nothing explains the noise, of variance 1
    assert max(r2 for count, r2 in front if count <= dense[0] / 2) > dense[1] - 0.02


def test_the_criterion_of_ones_own_is_the_energy_that_leaves_a_neuron():
    example = module("own_fitness")
    columns = torch.tensor([[0, 1], [2, 3]])  # two neurons, of two columns each
    weight, square = torch.tensor([[1.0, 2.0, 0.0, 1.0], [3.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0, 0.5, 4.0, 2.0])
    consumer = SimpleNamespace(weight=weight, square=square, columns=columns)
    scores = example.outgoing(None, SimpleNamespace(consumers=(consumer, consumer)))
    assert scores.tolist() == [2 * (10 * 1 + 4 * 0.5), 2 * (1 * 4 + 2 * 2)]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_transformer_keeps_its_accuracy_with_less_attention():
    lines = output("transformer", 20)
    assert "unit encoder.layers.0.self_attn/heads: 4 heads" in lines
    assert "unit encoder.layers.1.linear1: 128 neurons" in lines
    front = front_of(lines)
    assert front[-1][0] == 1
    assert front[-1][1] > 0.95
    assert front[0][1] < front[-1][1] - 0.2
    assert max(accuracy for share, accuracy in front if share <= 0.6) > front[-1][1] - 0.03


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_language_model_keeps_its_perplexity_at_half_of_its_macs(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'autoprune[llm]'")
    pattern = r"([\d.]+) of the MACs, perplexity ([\d.]+) \(([\d.]+) to ([\d.]+)\)"
    front = numbers(output("language_model", 20, tmp_path), pattern)
    least = (4 * 3 * 3 * 4) ** (1 / 11)  # of eleven tokens of a pair, four are drawn
    assert front[-1][0] == 1
    assert least < front[-1][1] < 1.15 * least
    assert all(low < value < high for _, value, low, high in front)
    assert min(value for share, value, *_ in front if share <= 0.5) < 1.05 * front[-1][1]
    assert front[0][1] > 1.2 * front[-1][1]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_run_is_opened_again_exported_and_searched_for_longer(tmp_path):
    lines = output("open_again", 20, tmp_path)
    assert "opened again: the same front" in lines
    with (tmp_path / "run" / "front.csv").open() as file:
        rows = list(csv.DictReader(file))
    small, data = autoprune.load(digits_resnet(), tmp_path / "small"), digits()
    with torch.no_grad():
        hits = torch.cat([small(*batch.inputs).argmax(dim=1) == batch.target for batch in data.report])
    size = sum(parameter.numel() for parameter in small.parameters())
    (row,) = [row for row in rows if float(row["params"]) == size]
    assert float(row["accuracy"]) == pytest.approx(hits.float().mean().item(), abs=1e-6)
    assert float(row["macs_ratio"]) <= 0.5
    evaluated = [len({row["candidate"] for row in evaluations(tmp_path / name)}) for name in ("run", "longer")]
    assert evaluated == [20, 40]


def evaluations(folder):
    return [{"candidate": str(found.candidate.levels)} for found in autoprune.run.read_evaluations(folder)]


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_a_fresh_process_computes_the_same_with_what_was_exported():
    lines = output("fresh_process", 20)
    (loaded, of) = re.search(r"loaded: (\d+) of (\d+) parameters, a searcher in memory: False", lines[-2]).groups()
    assert loaded == of
    assert int(of) < sum(parameter.numel() for parameter in digits_resnet().parameters()) * 0.8
    assert float(lines[-1].rpartition(" ")[2]) < 1e-5
    assert max(accuracy for share, accuracy in front_of(lines) if share <= 0.4) > 0.9
