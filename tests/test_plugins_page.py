"""The examples of the page on plug-ins keep their contracts and do what the page says."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune import testing
from autoprune.core.cost import Polynomial
from autoprune.prune.criteria import ConsumerStatistics, UnitStatistics, UnitWeights

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "plugins.md").read_text(encoding="utf-8")
BLOCKS = {code.split("\n")[0].removeprefix("# "): code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)}
ROWS = [line.strip("|").split(" | ") for line in PAGE.splitlines() if line.startswith("| [")]

CHECKS = {
    "my_search.py": ("Grow", testing.check_searcher),
    "my_costs.py": ("joules", testing.check_cost),
    "my_factory.py": ("megabytes", testing.check_cost),
    "my_criterion.py": ("largest_weight", testing.check_criterion),
    "my_energy.py": ("output_energy", testing.check_criterion),
    "my_format.py": ("Arrays", testing.check_exporter),
}
ELSEWHERE = {"my_data.py", "my_fitness.py", "my_loss.py", "my_tracker.py"}  # needs more than the page has, or a path


def shown(name):
    """What a block of the page defines."""
    space = {"__name__": name.removesuffix(".py")}
    exec(compile(BLOCKS[name], name, "exec", dont_inherit=True), space)
    return space


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 6), nn.Linear(6, 2)).eval()


def test_every_block_of_the_page_is_run_by_a_test():
    assert set(BLOCKS) == {*CHECKS, *ELSEWHERE}
    assert len(BLOCKS) == len(re.findall("```python", PAGE))


def test_the_table_lists_all_checks_and_links_to_every_extension_point():
    listed = {name for row in ROWS for name in re.findall(r"`(check_\w+)`", row[-1])}
    assert listed == {name for name in testing.__all__ if name.startswith("check_")} - {"check_evaluator"}
    assert "`check_evaluator`" in PAGE
    assert all(callable(getattr(testing, name)) for name in listed)
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    names = [re.findall(r"\[([\w ]+)\]", row[0])[0] for row in ROWS]
    assert len(names) == 14
    section = readme.partition("## Plug in your own")[2].lower()
    assert [name for name in names if name not in section] == []


@pytest.mark.parametrize("name", CHECKS)
def test_an_example_keeps_its_contract(name):
    plugin, check = CHECKS[name]
    check(shown(name)[plugin])


def test_the_function_of_the_page_can_be_marked_as_vectorised():
    joules = autoprune.vectorised(shown("my_costs.py")["joules"])
    assert joules({"a": np.array([3, 1]), "b": np.array([4, 1])}).tolist() == pytest.approx([25e-9, 2e-9])
    testing.check_cost(joules)


def test_the_factory_counts_the_bytes_of_weights_and_of_what_layers_return():
    model, x = network(), torch.randn(1, 1, 5, 5)
    structure = autoprune.find_structure(model, x)
    made = shown("my_factory.py")["megabytes"](structure, network(), (x,), batch=8)
    assert isinstance(made, Polynomial)
    params = sum(parameter.numel() for parameter in model.parameters())
    dense = made.evaluate(list(structure.cost.widths), np.array([list(structure.cost.widths.values())]))[0]
    assert dense == pytest.approx(4e-6 * (params + 8 * (4 * 9 + 6)))


def test_the_criterion_prefers_the_position_with_more_energy():
    weights = UnitWeights((torch.ones(2, 3),), (torch.ones(2, 1),))
    consumer = ConsumerStatistics(torch.ones(1, 2), torch.diag(torch.tensor([1.0, 3.0])), torch.tensor([[0], [1]]))
    scores = shown("my_energy.py")["output_energy"](weights, UnitStatistics((consumer,)))
    assert scores.tolist() == pytest.approx([0.25, 0.75])


def test_the_exporter_writes_arrays_that_numpy_reads(tmp_path):
    from autoprune.run.results.exporter import ExportFacts

    model = network()
    facts = ExportFacts(model, None, {"macs": 3})
    shown("my_format.py")["Arrays"]().write(model, facts, (), tmp_path)
    with np.load(tmp_path / "weights.npz") as read:
        assert all(np.array_equal(read[name], tensor.numpy()) for name, tensor in model.state_dict().items())


def test_the_tracker_writes_a_line_for_each_evaluation_and_goes_on_after_a_stop(tmp_path):
    log = shown("my_tracker.py")["Log"]
    testing.check_tracker(lambda: log(tmp_path / "checked.csv"))
    rng = np.random.default_rng(0)

    def images(count):
        return rng.standard_normal((count, 1, 5, 5)).astype(np.float32)

    sets = (images(8),), (images(8), rng.integers(0, 2, 8)), (images(8), rng.integers(0, 2, 8))
    data = autoprune.Data.from_arrays(*sets)
    front = autoprune.search(
        network(), data, searcher="random", evaluations=3, trackers=[log(tmp_path / "log.csv")], out=tmp_path / "run"
    )
    with (tmp_path / "log.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["n", "candidate", "status", "accuracy", "macs"]
    assert [line[0] for line in lines[1:-1]] == ["1", "2", "3"]
    assert len(lines[-1]) == 1 + len(front)
