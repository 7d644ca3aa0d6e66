"""Weights that a search empties: what is said of them, and what the front counts."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import GRIDS, LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.plan.ladder import uniform_levels
from autoprune.prune.bank.weights import emptied_weights
from autoprune.prune.modules.copying import named_tensors
from autoprune.run.drive import search
from autoprune.run.results.members import build_member, finish
from autoprune.run.session.emptied import EmptiedWeights, uniform_rivals
from autoprune.run.session.session import open_session

NONZEROS = (Objective("accuracy", "max"), Objective("nonzeros", "min"))
FLOORED = LevelRule("*", GRIDS["percent"], "weights")
EMPTYING = replace(FLOORED, floor=0)


def quiet(progress):
    pass


def weights_job(job, *rules, **changes):
    given = {"rules": rules, "objectives": NONZEROS, "masks": "magnitude", "compensation": "none", **changes}
    return job(**{"searcher": "uniform", "evaluations": 12, **given})


def emptying(space, *units):
    """The candidate that keeps as little as there is of these units and everything of all others."""
    return Candidate(tuple(len(c) - 1 if u in units else 0 for u, c in zip(space.units, space.levels, strict=True)))


@pytest.mark.parametrize("masks", ["magnitude", "wanda", "obs"])
def test_no_network_of_a_space_with_the_default_floor_has_a_weight_without_entries(job, masks):
    session = open_session(weights_job(job, FLOORED, masks=masks), quiet)
    network = session.scorer.network(session.space.smallest)
    for name in session.weights:
        weight = network.get_parameter(name)
        assert (weight != 0).sum() >= min(len(weight), weight.numel())
    assert emptied_weights(network, named_tensors(session.model)) == []


def test_the_least_share_that_a_rule_asks_for_holds_in_networks_that_lose_channels_too(job):
    rules = (LevelRule("layer*.conv1", (0.25,)), replace(FLOORED, min_keep=0.1))
    session = open_session(weights_job(job, *rules), quiet)
    network = session.scorer.network(session.space.smallest)
    assert any(network.get_parameter(name).numel() < w.width for name, w in session.weights.items())
    for name in session.weights:
        weight = network.get_parameter(name)
        assert (weight != 0).sum() >= 0.1 * weight.numel()


@pytest.mark.parametrize("unit", ["conv1.weight", "linear.weight"])
def test_a_planned_network_that_empties_a_weight_is_told_before_it_is_evaluated(job, caplog, unit):
    session = open_session(weights_job(job, EMPTYING), quiet)
    planned = emptying(session.space, unit, "layer2.0.conv1.weight")
    EmptiedWeights(session).look([planned])
    (message,) = caplog.messages
    assert f"0 of {session.weights[unit].width} entries of {unit}" in message
    assert "0 of 288 entries of layer2.0.conv1.weight" in message
    nonzeros = session.problem.costs_of(planned)["nonzeros"] / session.dense_costs["nonzeros"]
    assert f"nonzeros {nonzeros:.4f} of dense" in message


def test_a_weight_at_its_floor_is_told_with_how_much_that_is(job, caplog):
    session = open_session(weights_job(job, FLOORED), quiet)
    EmptiedWeights(session).look([emptying(session.space, "layer1.0.conv1.weight", "layer2.0.conv1.weight")])
    (message,) = caplog.messages
    assert "no more than the floor: 4 of 144 entries of layer1.0.conv1.weight, 8 of 288 entries of layer2" in message


def test_each_weight_is_named_once_and_probes_and_the_smallest_network_are_not_plans(job, caplog):
    session = open_session(weights_job(job, EMPTYING), quiet)
    watch = EmptiedWeights(session)
    watch.look([emptying(session.space, "conv1.weight"), session.space.smallest, session.space.dense])
    assert not caplog.messages
    for _ in range(2):
        watch.look([emptying(session.space, "conv1.weight", "linear.weight")])
    assert len(caplog.messages) == 1


def test_a_level_that_is_the_least_and_above_the_floor_is_not_told(job, caplog):
    session = open_session(weights_job(job, LevelRule("*", (0.5,), "weights")), quiet)
    EmptiedWeights(session).look([emptying(session.space, "conv1.weight", "linear.weight")])
    assert not caplog.messages


def test_a_search_tells_what_it_plans_and_the_front_counts_and_names_what_is_emptied(job, caplog, tmp_path):
    asked = weights_job(job, replace(EMPTYING, keep=(0.5, 0.0)), searcher="random", evaluations=30)
    search(asked, tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "front.json").read_text())["rows"]
    for row in rows:
        assert row["emptied_weights"] == [name for name, count in row["kept"].items() if count == 0]
        assert row["emptied"] == len(row["emptied_weights"])
    assert any(row["emptied"] for row in rows)
    with (tmp_path / "run" / "front.csv").open() as file:
        assert [int(line["emptied"]) for line in csv.DictReader(file)] == [row["emptied"] for row in rows]
    assert "nothing passes through a weight without entries" in caplog.text
    assert "nothing is left of" in caplog.text


def test_a_front_without_zeros_has_the_columns_it_had(job, tmp_path):
    search(job("uniform", 4, compensation="none"), tmp_path / "run")
    rows = json.loads((tmp_path / "run" / "front.json").read_text())["rows"]
    assert not any(name.startswith("emptied") for row in rows for name in row)


def test_what_building_empties_is_counted_where_no_unit_is_emptied(job, monkeypatch, caplog):
    """Another way for a weight to vanish: here a fit that leaves a weight of one of the networks all zero."""
    asked = job("uniform", 3, compensation="none")
    session = open_session(asked, quiet)
    real, smallest = type(session.scorer).build, session.space.counts(session.space.smallest)

    def zeroed(scorer, subnet):
        network = real(scorer, subnet)
        if subnet.counts == smallest:
            nn.init.zeros_(network.get_parameter("layer1.0.conv2.weight"))
        return network

    monkeypatch.setattr(type(session.scorer), "build", zeroed)
    monkeypatch.setattr("autoprune.run.results.building.verify_positions", lambda *args: Agreeing())
    scored = [session.scorer.score(c) for c in (session.space.dense, session.space.smallest)]
    values = [replace(e, values={**e.values, **session.problem.costs_of(e.candidate)}) for e in scored]
    found = build_member(session, values[1]).member
    assert (found["emptied"], found.emptied_weights) == (1, ("layer1.0.conv2.weight",))
    rows = finish(session, values, None).members
    assert [row["emptied"] for row in rows] == [int(any(row.levels)) for row in rows]
    assert "nothing is left of layer1.0.conv2.weight" in caplog.text


class Agreeing:
    """A proof that went well."""

    ok, worst = True, 0.0


def test_a_front_has_the_uniform_network_where_one_that_empties_weights_is_worse_as_built(job, monkeypatch, caplog):
    """While searching a network that passes nothing on looks better than one that a fit repairs."""
    session = open_session(weights_job(job, EMPTYING, guide=None), quiet)
    emptied = emptying(session.space, "layer2.0.conv1.weight", "layer3.0.conv2.weight", "layer3.0.conv1.weight")
    rows = [Candidate(tuple(row)) for row in uniform_levels(session.space).tolist()]
    nonzeros = {c: session.problem.costs_of(c)["nonzeros"] for c in (*rows, emptied)}
    uniform = max((c for c in rows if nonzeros[c] <= nonzeros[emptied]), key=nonzeros.__getitem__)
    searched = {emptied: 0.5, uniform: 0.05, session.space.smallest: 0.1}  # so that two of them are on the front
    as_built = {emptied: 0.1, uniform: 0.9, session.space.smallest: 0.05}
    scored = [
        Evaluation(c, {"accuracy": value, "kl": 1.0, **session.problem.costs_of(c)}) for c, value in searched.items()
    ]

    accuracies = {session.space.key(candidate): value for candidate, value in as_built.items()}

    def built(parts, subnet, warn):
        network = parts.scorer.build(subnet)
        network.accuracy = accuracies[tuple(subnet.counts.values())]
        return network, 0, None

    monkeypatch.setattr("autoprune.run.results.building.deployed", built)

    def measure(scorer, network, batches):
        return {"accuracy": network.accuracy, "kl": 1.0}

    monkeypatch.setattr(type(session.scorer), "measure", measure)
    found = finish(session, scored, None).members
    assert [row.levels for row in found] == [session.space.smallest.levels, uniform.levels]
    assert "left out of the front, as another network is better as built" in caplog.text
    assert "0 entries of layer2.0.conv1.weight" in caplog.text


def test_members_that_empty_nothing_are_built_alone(job):
    session = open_session(weights_job(job, EMPTYING), quiet)
    costs = [(c, session.problem.costs_of(c)) for c in (session.space.dense, emptying(session.space, "conv1.weight"))]
    dense, thin = (Evaluation(c, {"accuracy": 0.5, **values}) for c, values in costs)
    assert uniform_rivals(session, [dense], [dense, thin]) == []
    assert uniform_rivals(session, [thin], [thin]) == []


def test_a_weight_that_is_zero_in_the_dense_network_was_not_emptied():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    nn.init.zeros_(dense["0.weight"])
    for name in ("0.weight", "1.weight", "2.weight"):
        nn.init.zeros_(model.get_parameter(name))
    assert emptied_weights(model, dense) == ["2.weight"]
    with torch.no_grad():
        model[2].weight[1, 3] = 1e-30
    assert emptied_weights(model, dense) == []
