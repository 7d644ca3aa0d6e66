"""A criterion found on a tiny network: the file it is in, what it says, and a job that uses it."""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.errors import ConfigError, RunExists
from autoprune.measure.fitness import classification, reconstruction
from autoprune.plugins import load_plugin
from autoprune.prune.criteria import needs_of, wanda
from autoprune.prune.criteria.ordering import order_units
from autoprune.run.criterion.evolve import KNOWN
from autoprune.run.criterion.formula import of, orders
from autoprune.run.criterion.judge import Judge, find_criterion
from autoprune.run.criterion.plugin import CriterionScore, FoundCriterion, source_of, table_of
from autoprune.run.drive import search
from autoprune.run.session.job import Job, silent
from autoprune.run.session.session import open_session
from autoprune.searchers import make_searcher
from autoprune.zoo.resnet import ResNet


@pytest.fixture(scope="module")
def tiny(data):
    """The job of the conftest, made once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNet((1, 1, 1), (4, 8, 16), classes=4).eval()
    return Job(
        name="tiny",
        model=lambda: model,
        data=lambda: data,
        rules=(LevelRule("*", (0.25, 0.5, 0.75)),),
        objectives=(Objective("accuracy", "max"), Objective("macs", "min")),
        searcher=lambda problem, seed: make_searcher("uniform", problem, seed=seed),
        fitness=classification,
        evaluations=3,
        threads=1,
        tune="off",
    )


@pytest.fixture(scope="module")
def found(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("criterion") / "mine.py"
    return find_criterion(tiny, path, evaluations=10), path


@pytest.mark.slow
def test_the_file_is_a_plug_in_that_orders_positions_as_the_formula_does(tiny, found):
    criterion = load_plugin(f"{found[1]}:scores")
    session = open_session(tiny, silent)
    units = [session.structure.unit(name) for name in session.sliced]
    written, notes = order_units(
        session.model, session.structure, units, criterion, session.bank.moments, session.scorer.calibrate
    )
    expected = orders(found[0].formula, Judge(session).table)
    assert notes == {}
    assert {unit: order.tolist() for unit, order in written.items()} == {u: o.tolist() for u, o in expected.items()}


def test_the_file_compares_it_with_built_in_criteria_and_runs_nothing_it_reads(found):
    result, path = found
    said = ast.get_docstring(ast.parse(path.read_text()))
    assert said.splitlines()[0].endswith(str(result.formula))
    assert table_of(result) in said
    assert [row.name for row in result.scores] == ["found", "obs", "l1", "l2", "wanda", "flap", "taylor", "random"]
    names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
    assert not names & {"eval", "exec", "compile"}
    scores = {row.name: row.selected for row in result.scores}
    assert scores["found"] <= min(scores["wanda"], scores["flap"])  # which it began with


def test_a_score_is_the_mean_over_uniform_networks_of_the_search_itself(tiny):
    """Wanda as a formula and as a criterion, the latter scored by the scorer of a session that uses it."""
    judge = Judge(open_session(tiny, silent))
    session = open_session(replace(tiny, criterion="wanda"), silent)
    values = [session.scorer.score(network).values["kl"] for network in judge.networks]
    assert [set(network.levels) for network in judge.networks] == [
        {1},
        {2},
    ]  # 0.375 is as near to a half as to a quarter
    assert judge.loss(orders(KNOWN["Wanda"], judge.table)) == pytest.approx(np.mean(values), rel=1e-9)
    assert judge.kept == pytest.approx((0.75, 0.5))


def test_a_job_searches_with_the_file(tiny, found):
    assert search(replace(tiny, criterion=load_plugin(f"{found[1]}:scores")), None).members


@pytest.mark.slow
def test_the_same_seed_finds_the_same_formula(tiny, found, tmp_path):
    again = find_criterion(tiny, tmp_path / "again.py", evaluations=10)
    assert again == found[0]
    assert (tmp_path / "again.py").read_text() == found[1].read_text().replace("mine.py", "again.py")


def test_a_network_without_classes_is_searched_without_gradients(tiny):
    maps = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    objectives = (Objective("mse", "min"), Objective("macs", "min"))
    given = replace(tiny, model=lambda: maps, objectives=objectives, fitness=reconstruction, guide=None)
    judge = Judge(open_session(given, silent))
    assert judge.guide.name == "mse"
    assert sorted(next(iter(judge.table.values()))[0]) == ["inputs", "producer", "spread", "weight"]


def test_a_declaration_has_gradients_only_where_the_formula_reads_them(tmp_path):
    for number, formula in enumerate([KNOWN["Wanda"], of("mul", "gradient", of("root", "weight"))]):
        path = tmp_path / f"written{number}.py"
        scores = (CriterionScore("found", 0.5, {"kl": 0.5}),)
        path.write_text(source_of(FoundCriterion(formula, 1, "kl", (0.5,), scores), path.name, 0))
        wanted = needs_of(load_plugin(f"{path}:scores"))
        assert wanted == ({"moments", "gradients"} if number else needs_of(wanda))


def test_a_file_that_is_there_or_is_none_of_python_is_refused(tiny, tmp_path):
    (tmp_path / "taken.py").write_text("")
    with pytest.raises(RunExists, match="taken.py is already there. Give another --out."):
        find_criterion(tiny, tmp_path / "taken.py")
    with pytest.raises(ConfigError, match="expected a Python file to write the criterion to"):
        find_criterion(tiny, tmp_path / "criterion.txt")


def test_costs_alone_and_branches_alone_leave_nothing_to_judge_by(tiny, tmp_path):
    with pytest.raises(ConfigError, match="expected an objective that is measured, got only costs"):
        find_criterion(replace(tiny, objectives=(Objective("macs", "min"),), guide=None), tmp_path / "a.py")
    with pytest.raises(ConfigError, match="expected units whose consumers have statistics, found none"):
        find_criterion(replace(tiny, rules=(LevelRule("*", (0.0,), kind="branches"),)), tmp_path / "b.py")
