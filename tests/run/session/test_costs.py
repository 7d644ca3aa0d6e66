"""Costs that factories make from the network, and costs of many candidates at once."""

import functools
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import autoprune
from autoprune.config import load
from autoprune.core.cost import Formula, Polynomial
from autoprune.errors import ConfigError, JournalMismatch, PluginError
from autoprune.plan.exact.terms import terms_of
from autoprune.run import resume, search
from autoprune.run.session.job import silent
from autoprune.run.session.session import open_session


@autoprune.cost_factory
def bytes_moved(structure, model, example, per_number=4.0):
    """Weights and the activations between units: a polynomial."""
    return per_number * structure.cost.costs["params"] + sum(Polynomial.of(unit.name) for unit in structure.units)


def problem_of(job, cost):
    return open_session(job("uniform", 4, costs={"own": cost}), silent).problem


def test_a_polynomial_stands_beside_the_built_in_costs_and_plans_on_it_are_exact(job):
    problem = problem_of(job, functools.partial(bytes_moved, per_number=0.5))
    polynomial = problem.costs.costs["own"]
    assert isinstance(polynomial, Polynomial)
    levels = np.array(list(itertools.islice(itertools.product(*map(range, problem.space.sizes)), 0, 4000, 97)))
    params = problem.cost_values(levels)["params"]
    units = list(problem.costs.widths)
    kept = np.tile([problem.costs.widths[name] for name in units], (len(levels), 1))
    kept[:, [units.index(name) for name in problem.space.units]] = problem.space.kept(levels)
    expected = 0.5 * params + kept.sum(axis=1)
    assert problem.cost_values(levels)["own"] == pytest.approx(expected, rel=1e-12)
    assert terms_of(problem, "own").cost(levels) == pytest.approx(expected, rel=1e-12)


def test_a_factory_gets_the_structure_a_copy_of_the_network_and_an_example(job, model):
    seen = {}

    @autoprune.cost_factory
    def watching(structure, network, example):
        seen.update(units=structure.units, training=network.training, output=network(*example))
        for parameter in network.parameters():
            parameter.data.zero_()
        return lambda kept: float(sum(kept.values()))

    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    session = open_session(job("uniform", 4, costs={"own": watching}), silent)
    assert [unit.name for unit in seen["units"]] == [unit.name for unit in session.structure.units]
    assert not seen["training"]
    assert seen["output"].shape[1] == 4
    for network in (model, session.model):
        assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert session.dense_costs["own"] == sum(session.problem.costs.widths.values())


@autoprune.cost_factory
class Energy:
    """A factory that is a class: its objects are the cost."""

    def __init__(self, structure, model, example):
        self.macs = structure.cost

    def __call__(self, kept):
        row = np.array([list(kept.values())])
        return 1e-9 * float(self.macs.evaluate(list(kept), row, ["macs"])["macs"][0])


@autoprune.vectorised
def total(kept):
    return sum(kept.values())


class Doubled(Formula):
    def evaluate(self, units, kept):
        return 2.0 * kept.sum(axis=1)


def test_classes_vectorised_functions_and_formulas_are_costs_too(job):
    problem = problem_of(job, Energy)
    assert problem.costs.dense()["own"] == 1e-9 * problem.costs.dense()["macs"]
    widths = sum(problem.costs.widths.values())
    assert problem_of(job, total).costs.dense()["own"] == widths
    made = autoprune.cost_factory(lambda structure, model, example: Doubled())
    assert problem_of(job, made).costs.dense()["own"] == 2.0 * widths
    assert problem_of(job, autoprune.cost_factory(lambda *given: total)).costs.dense()["own"] == widths


def made(cost):
    """A factory that returns this."""
    return autoprune.cost_factory(lambda structure, model, example: cost)


def failing(structure, model, example):
    return model.no_such_layer


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda structure, model, example: 1.0, "expected the argument 'model', .* Mark a factory .*cost_factory"),
        (autoprune.cost_factory(lambda kept: 1.0), r"expected a function of \(structure, model, example\)"),
        (autoprune.cost_factory(failing), "the factory of the cost 'own' raised AttributeError"),
        (made(None), "to return a function of kept counts or a Formula such as autoprune.Polynomial, got a NoneType"),
        (made(3.0), "got a float"),
        (made(Energy), "got the class Energy"),
        (made(Polynomial.of("layer9")), "in kept counts of units of the network, got 'layer9'"),
        (made(Polynomial({(): math.nan})), "finite coefficients"),
        (made(Polynomial.constant(-1)), "to be a finite number of 0 or more, got -1"),
        (made(Polynomial()), "of the dense network to be above 0, got 0"),
        (made(lambda kept: math.nan), "finite number of 0 or more, got nan"),
        (made(lambda: 1.0), "raised TypeError"),
        (autoprune.vectorised(lambda kept: 1.0), r"to return \(1,\) numbers for 1 candidates at once, got shape \(\)"),
        (autoprune.vectorised(lambda kept: -sum(kept.values())), "finite numbers of 0 or more, got -"),
        (autoprune.vectorised(lambda kept: kept["x"]), "of 1 candidates at once raised KeyError"),
        (autoprune.vectorised(lambda kept: 1e6 / sum(kept.values())), "least at the smallest network"),
    ],
)  # fmt: skip
def test_a_cost_that_breaks_its_contract_is_told_before_the_search(job, tmp_path, cost, message):
    with pytest.raises(PluginError, match=message):
        search(job("uniform", 4, costs={"own": cost}), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_factory_whose_options_or_values_changed_is_another_cost(job, tmp_path):
    def costing(**options):
        return job("uniform", 4, costs={"own": functools.partial(bytes_moved, **options)})

    search(costing(per_number=2.0), tmp_path / "run")
    resume(costing(per_number=2.0), tmp_path / "run")
    with pytest.raises(JournalMismatch, match=r"cost own: per_number was 2\.0, is 1\.0"):
        resume(costing(per_number=1.0), tmp_path / "run")


def test_a_factory_that_reads_another_file_is_another_cost(job, tmp_path):
    table = tmp_path / "table.txt"

    @autoprune.cost_factory
    def read(structure, model, example, path=str(table)):
        factor = float(Path(path).read_text())
        return lambda kept: factor * sum(kept.values())

    table.write_text("1.0")
    search(job("uniform", 4, costs={"own": read}), tmp_path / "run")
    table.write_text("3.0")
    with pytest.raises(JournalMismatch, match=r"cost own: cost of the dense network was [\d.]+, is [\d.]+"):
        resume(job("uniform", 4, costs={"own": read}), tmp_path / "run")


JOB = """
version: 1
model: {call: "autoprune.zoo:digits_resnet"}
data: {call: "autoprune.data:digits"}
objectives: [{name: accuracy, direction: max}, {name: own, direction: min}]
space: {version: 1, units: [{match: "*", levels: 4}]}
costs: {own: {call: "my_costs.py:own", scale: 2.0}}
"""


def test_a_job_file_names_a_factory_as_it_names_a_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "my_costs.py").write_text(
        "import autoprune\n\n\n@autoprune.cost_factory\ndef own(structure, model, example, scale):\n"
        "    return scale * structure.cost.costs['macs']\n"
    )
    problem = open_session(load("job.yaml", ()).resolve(), silent).problem
    assert problem.costs.dense()["own"] == 2 * problem.costs.dense()["macs"]
    with pytest.raises(ConfigError, match="unknown argument 'sale'.*it takes scale"):
        load("job.yaml", ["costs={own: {call: 'my_costs.py:own', sale: 1.0}}"])


def test_a_factory_that_writes_to_the_structure_changes_no_other_cost(job):
    @autoprune.cost_factory
    def tripled(structure, model, example):
        structure.cost.costs["macs"] = 3 * structure.cost.costs["macs"]
        return structure.cost.costs["macs"]

    problem, plain = problem_of(job, tripled), problem_of(job, bytes_moved)
    costs = problem.costs.dense()
    assert costs["macs"] == plain.costs.dense()["macs"] == costs["own"] / 3
