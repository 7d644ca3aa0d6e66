"""Searches with short fine-tunes, from a job to a network loaded again."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import autoprune
from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.data import digits
from autoprune.errors import ConfigError, DataError, JournalMismatch, RunFailed
from autoprune.measure.settings import Scoring
from autoprune.prune.surgery.verify import verify_positions
from autoprune.run import read_evaluations, resume, search, solve
from autoprune.run.after import export
from autoprune.run.results.deployed import deployed
from autoprune.run.results.export import load
from autoprune.run.session.job import Executor
from autoprune.run.session.session import open_session
from autoprune.train.finetune import FineTune
from autoprune.zoo import digits_resnet

PLAN = FineTune(steps=9, lr=0.02)
SMALL = {"width": 6, "eta": 2, "least": 0.25}  # of halving: a bracket of 6, 3 and 2 networks


@pytest.fixture
def compensation():
    return "sequential"


class Smallest:
    """The smallest networks, each with one unit a step wider."""

    def __init__(self, problem):
        lowest = problem.space.smallest.levels
        self.queue = [(*lowest[:unit], lowest[unit] - 1, *lowest[unit + 1 :]) for unit in range(len(lowest))]

    def ask(self, n):
        asked, self.queue = self.queue[:n], self.queue[n:]
        return [Candidate(levels) for levels in asked]

    def tell(self, evaluations):
        pass


@pytest.fixture
def tuned(job, trainable):
    def make(searcher="evolution", evaluations=8, **changes):
        return job(searcher, evaluations, **{"data": lambda: trainable, "finetune": PLAN, **changes})

    return make


@pytest.fixture
def finished(tuned, made_once, tmp_path):
    return made_once("run", lambda path: search(tuned("halving", 4, options=SMALL), path), tmp_path / "run")


def opened(job):
    return open_session(job, lambda progress: None)


def by_network(evaluations):
    return {e.candidate: (e.status, dict(e.values), e.steps) for e in evaluations}


def test_a_search_trains_for_shares_of_the_steps_and_measures_on_everything(finished):
    found = [e for e in read_evaluations(finished) if e.ok]
    assert {(e.candidate.fidelity, e.steps) for e in found if any(e.candidate.levels)} == {
        (0.25, 3),
        (0.5, 5),
        (1.0, 9),
    }
    assert {e.steps for e in found if not any(e.candidate.levels)} <= {0}
    assert {e.examples for e in found} == {0}


def test_a_network_that_goes_up_has_the_values_of_one_trained_from_the_start(tuned, finished):
    session = opened(tuned())
    full = [e for e in read_evaluations(finished) if e.candidate.fidelity == 1 and e.steps]
    assert full
    for evaluation in full:
        measured = session.scorer.score(evaluation.candidate).values
        assert {name: evaluation.values[name] for name in measured} == measured


@pytest.mark.slow
def test_values_depend_neither_on_what_is_kept_nor_on_who_trains(tuned):
    processes = Executor("processes", workers=1)
    ways = [{"scoring": Scoring(reuse_gib=0), "executor": processes}, {}]
    found = [search(tuned("halving", 4, options=SMALL, deterministic=True, **way), None).evaluations for way in ways]
    assert by_network(found[0]) == by_network(found[1])
    assert {e.steps for e in found[0]} >= {3, 5, 9}


def test_the_budget_counts_every_step_once(tuned):
    told = search(tuned("halving", 5, options=SMALL), None).evaluations
    highest: dict[tuple[int, ...], float] = {}
    for evaluation in told:
        if evaluation.status != "infeasible" and any(evaluation.candidate.levels):
            levels = evaluation.candidate.levels
            highest[levels] = max(highest.get(levels, 0), evaluation.candidate.fidelity)
    dense = sum({e.candidate.fidelity for e in told if not any(e.candidate.levels)})
    assert sum(highest.values()) + dense == pytest.approx(5, abs=1 / 3)


def test_a_run_cut_anywhere_resumes_to_the_same_front_byte_for_byte(tuned, finished, tmp_path):
    front, whole = (finished / "front.csv").read_bytes(), (finished / "journal.jsonl").read_bytes()
    for cut in np.random.default_rng(0).integers(len(whole) // 10, len(whole), 2):
        (finished / "journal.jsonl").write_bytes(whole[:cut])
        (finished / "front.csv").unlink()
        resume(tuned("halving", 4, options=SMALL), finished)
        assert (finished / "front.csv").read_bytes() == front


@pytest.mark.parametrize(
    "other", [None, replace(PLAN, lr=0.5), replace(PLAN, steps=10), replace(PLAN, loss="cross_entropy")], ids=str
)
def test_a_run_trained_otherwise_is_not_resumed(tuned, finished, other):
    with pytest.raises(JournalMismatch, match=r"finetune was .*'lr': 0.02.*, is "):
        resume(tuned("halving", 4, options=SMALL, finetune=other), finished)


def test_a_run_with_other_training_examples_is_not_resumed(tuned, finished, trainable):
    fewer = replace(trainable, train=iter(trainable.train[:2]))  # what is no tuple is not among the checked sets
    with pytest.raises(JournalMismatch, match="finetune was"):
        resume(tuned("halving", 4, options=SMALL, data=lambda: fewer), finished)


def test_events_and_environment_say_how_networks_were_trained(finished):
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    (begun,) = [event for event in events if event["event"] == "search"]
    assert begun["finetune"]["steps"] == 9
    assert {event.get("steps", 0) for event in events if event["event"] == "evaluation"} >= {3, 5, 9}
    environment = json.loads((finished / "environment.json").read_text())
    expected = {"steps": 9, "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0, "loss": "kl", "batch": 20}
    assert environment["finetune"].items() >= expected.items()
    assert len(environment["finetune"]["train"]) == 64


def test_progress_says_what_is_trained_on(tuned):
    said = []
    search(tuned(evaluations=2), None, said.append)
    assert [p.message for p in said if p.phase == "train set"] == ["", "9 steps of 20 out of 70 examples for a network"]


def test_a_run_without_fine_tuning_says_nothing_of_it(job, tmp_path):
    search(job("uniform", 3), tmp_path / "run")
    for path in (tmp_path / "run").iterdir():
        if path.suffix != ".safetensors":
            assert "finetune" not in path.read_text(), path
            assert '"steps"' not in path.read_text(), path


@pytest.mark.slow
def test_no_member_is_worse_on_the_selection_set_than_its_score_or_without_training(tuned):
    for compensation in ("sequential", "none"):
        job = tuned("uniform", 5, compensation=compensation, tune="off")
        plain = replace(job, finetune=None)
        result, session = search(job, None), opened(plain)
        assert {row["finetune_steps"] for row in result.members} <= {0, 9}
        for row in result.members:
            candidate = Candidate(row.levels)
            untrained = session.selected(deployed(session, session.scorer.subnet(candidate)).network)["kl"]
            assert row["select_kl"] <= min(row["search_kl"], untrained)


def test_without_compensation_the_network_that_was_scored_is_the_one_deployed(tuned):
    session = opened(tuned(compensation="none", finetune=replace(PLAN, steps=40)))
    candidate = session.space.smallest
    evaluation, member = session.scorer.score(candidate), deployed(session, session.scorer.subnet(candidate))
    assert member.steps == 40
    assert session.selected(member.network) == evaluation.values


def test_the_dense_network_is_deployed_as_it_is(tuned, model):
    session = opened(tuned())
    network, steps, fit = deployed(session, session.scorer.subnet(session.space.dense))
    assert (steps, fit) == (0, None)
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_trained_members_are_verified_exported_and_loaded(tuned, model, tmp_path):
    job = tuned("uniform", 4, compensation="none", finetune=FineTune(30, lr=0.1))
    result = search(job, tmp_path / "run")
    rows = list(csv.DictReader((tmp_path / "run" / "front.csv").read_text().splitlines()))
    assert {row["finetune_steps"] for row in rows} >= {"30"}
    assert all(float(row["verify_error"]) <= 1e-4 for row in rows)
    row = export(job, tmp_path / "run", "macs<=0.3", tmp_path / "small")
    assert row["finetune_steps"] == 30
    assert row in result.members
    small = load(model, tmp_path / "small")
    session = opened(job)
    subnet = session.scorer.subnet(Candidate(row.levels))
    network = deployed(session, subnet).network
    assert all(torch.equal(tensor, small.state_dict()[name]) for name, tensor in network.state_dict().items())
    assert verify_positions(model, small, session.structure, subnet.positions, session.example, small.state_dict()).ok


def test_another_budget_is_solved_with_training(tuned, finished):
    assert solve(tuned("halving", 4, options=SMALL), finished, "macs=0.6")["finetune_steps"] in (0, 9)


def test_a_network_whose_training_diverges_is_scored_and_deployed_without_it(tuned):
    session, plain = opened(tuned(finetune=replace(PLAN, lr=1e30))), opened(tuned(finetune=None))
    candidate = session.space.smallest
    assert session.scorer.score(candidate).values == plain.scorer.score(candidate).values
    network, steps, _ = deployed(session, session.scorer.subnet(candidate))
    assert steps == 0
    assert all(math.isfinite(float(tensor.sum())) for tensor in network.state_dict().values())


def test_a_search_in_which_no_loss_is_finite_ends_with_the_cause(tuned):
    seen = []

    def infinite_if_pruned(output, batch):
        seen.append(batch)
        return output.sum() * (1.0 if len(seen) <= 2 else math.inf)  # the dense network's, held-out and in a step

    plan = replace(PLAN, loss=infinite_if_pruned)
    with pytest.raises(RunFailed, match=r"all failed: TrainingDiverged: expected a network with a finite loss before"):
        search(replace(tuned(finetune=plan), searcher=lambda problem, seed: Smallest(problem)), None)


def test_zeros_in_weights_stay_in_what_is_deployed(tuned):
    rules = (LevelRule("layer2*", (0.5,)), LevelRule("*", (0.1,), "weights"))
    objectives = (Objective("accuracy", "max"), Objective("nonzeros", "min"))
    session = opened(tuned(rules=rules, objectives=objectives))
    candidate = session.space.smallest
    subnet = session.scorer.subnet(candidate)
    for network in (session.scorer.trained(subnet, 9), deployed(session, subnet).network):
        entries = sum(int((network.get_parameter(name) != 0).sum()) for name in session.weights)
        rest = sum(p.numel() for name, p in network.named_parameters() if name not in session.weights)
        assert entries + rest == session.problem.costs_of(candidate)["nonzeros"]


def test_data_without_a_train_set_are_refused(job):
    with pytest.raises(ConfigError, match=r"finetune: expected data with a train set, got none. Give it one"):
        search(job(finetune=PLAN), None)


def test_a_loss_that_does_not_fit_the_network_ends_the_run_before_it_starts(tuned, tmp_path):
    def loss(output, batch):
        raise ValueError("no boxes in here")

    with pytest.raises(RunFailed, match="the dense network cannot be trained: ValueError: no boxes in here"):
        search(tuned(finetune=replace(PLAN, loss=loss)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_everything_that_does_not_go_with_fine_tuning_is_told_at_once(job, model):
    frozen = model.requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        search(job(finetune=PLAN, scoring=Scoring("batch"), guide="layer", model=lambda: frozen), None)
    keys = [problem.partition(":")[0] for problem in caught.value.problems]
    assert keys == ["finetune", "finetune", "search.batch_norms", "search.guide"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("racing", {}),
        ("optuna", {"over": "sensitivities", "budget": 0.5, "pruner": "WilcoxonPruner", "eta": 2, "least": 0.1}),
    ],
)
def test_searchers_that_compare_part_by_part_are_refused(tuned, name, options):
    with pytest.raises(ConfigError, match="finetune: expected a searcher that does not compare networks part by part"):
        search(tuned(name, options=options), None)


def test_too_few_steps_for_the_fidelities_are_refused(tuned):
    with pytest.raises(ConfigError, match=r"finetune.steps: expected enough for the 3 shares .* from 0.111 on, got 2"):
        search(tuned("halving", finetune=FineTune(2)), None)


@pytest.mark.parametrize("name", ["asha", "screening", "evopress"])
def test_other_searchers_on_parts_train_for_shares_too(tuned, name):
    told = search(tuned(name, 2, finetune=FineTune(32)), None).evaluations
    assert len({e.steps for e in told if e.ok}) > 1


def test_training_examples_that_are_in_the_report_set_are_refused(tuned, trainable):
    leaking = replace(trainable, train=iter(trainable.report))
    with pytest.raises(DataError, match="expected report and train to be disjoint"):
        search(tuned(data=lambda: leaking), None)


def test_a_loader_is_read_as_far_as_there_are_steps_and_may_shuffle(tuned, trainable):
    x, y = (
        torch.cat([tensor(batch) for batch in trainable.train])
        for tensor in (lambda b: b.inputs[0], lambda b: b.target)
    )
    dataset = torch.utils.data.TensorDataset(x, y)

    def data():
        loader = torch.utils.data.DataLoader(dataset, batch_size=7, shuffle=True)
        return replace(trainable, train=loader)

    one, other = (opened(tuned(data=data)) for _ in range(2))
    torch.rand(3)
    assert one.finetune_facts == other.finetune_facts
    assert one.training.examples.examples == 9 * 7
    assert one.scorer.score(one.space.smallest).values == other.scorer.score(other.space.smallest).values


def test_an_order_of_positions_is_searched_for_without_training(tuned):
    session = opened(tuned())
    plain = opened(replace(tuned(), finetune=None))
    assert session.bank.orders.keys() == plain.bank.orders.keys()


@pytest.mark.slow
def test_on_the_digits_a_short_fine_tune_gives_a_better_front_on_held_out_images():
    given = {
        "objectives": ("accuracy", "macs"),
        "rules": [LevelRule("*", (0.25,))],
        "searcher": "uniform",
        "evaluations": 2,
        "criterion": "l2",
        "device": "cpu",
    }
    with_it = autoprune.search(digits_resnet(), digits(), finetune=FineTune(30, lr=0.02), **given)
    without = autoprune.search(digits_resnet(), digits(), **given)
    tuned, plain = (front.pick("macs<=0.3") for front in (with_it, without))
    assert tuned.levels == plain.levels
    assert tuned["finetune_steps"] == 30
    assert tuned["kl"] < 0.75 * plain["kl"]
    assert tuned["accuracy"] > plain["accuracy"]
