"""Optuna's samplers behind the contract: over levels and over sensitivities, with bounds, by name and by module."""

from __future__ import annotations

import importlib
import itertools
import sys
import warnings

import numpy as np
import optuna
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.searchers.optuna.classes import known_classes
from autoprune.searchers.optuna.search import OptunaSearch
from autoprune.testing import check_searcher, synthetic_problem, trace

COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))


class Corners(optuna.samplers.RandomSampler):
    """A sampler of one's own, without a seed: everything dense, or everything at its smallest."""

    def __init__(self, wide: bool = True) -> None:
        super().__init__()
        self.wide = wide

    def sample_independent(self, study, trial, param_name, param_distribution):
        return param_distribution.low if self.wide else param_distribution.high


def run(searcher, synthetic, evaluations):
    """The evaluations a searcher was told of."""
    told = []
    trace(searcher, synthetic.problem, lambda _, c: told.append(synthetic.evaluate(c)) or told[-1], evaluations)
    return told


@pytest.mark.parametrize("sampler", ["RandomSampler", "NSGAIIISampler", "TPESampler", "BruteForceSampler"])
@pytest.mark.slow
def test_other_samplers_keep_the_contract_too(sampler):
    # few networks of the ladder and few random start-up trials of TPE, so that it leaves both within 10 evaluations
    options = {"n_startup_trials": 4} if sampler == "TPESampler" else None
    check_searcher(
        lambda problem, seed: OptunaSearch(problem, seed=seed, sampler=sampler, sampler_options=options, rungs=2),
        evaluations=10,
    )


def test_sensitivities_keep_the_contract_too():
    check_searcher(
        lambda problem, seed: OptunaSearch(problem, seed=seed, over="sensitivities", sampler="RandomSampler", rungs=2),
        evaluations=5,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"sampler": "TPESampler", "over": "sensitivities"},
        {"sampler": "CmaEsSampler", "over": "sensitivities", "budget": 0.5},
    ],
    ids=["tpe over sensitivities", "cma-es"],
)
def test_samplers_that_take_long_keep_the_contract_too(options):
    if options["sampler"] == "CmaEsSampler":
        pytest.importorskip("cmaes")
    check_searcher(lambda problem, seed: OptunaSearch(problem, seed=seed, rungs=2, **options), evaluations=12)


@pytest.mark.slow
def test_gaussian_processes_keep_the_bounds_and_repeat_themselves():
    pytest.importorskip("scipy")
    synthetic = synthetic_problem(units=4, levels=4, budget=0.4)
    options = {"sampler": "GPSampler", "sampler_options": {"n_startup_trials": 4}, "rungs": 2}
    runs = [run(OptunaSearch(synthetic.problem, **options), synthetic, 8) for _ in range(2)]
    assert runs[0] == runs[1]
    assert len({e.candidate for e in runs[0]}) == 8


def test_options_go_to_the_sampler():
    synthetic = synthetic_problem()
    small = OptunaSearch(synthetic.problem, sampler_options={"population_size": 4})
    plain = OptunaSearch(synthetic.problem)
    found = [trace(s, synthetic.problem, lambda _, c: synthetic.evaluate(c), 40) for s in (small, plain)]
    assert found[0] != found[1]


def test_the_ladder_comes_first_and_can_be_left_out():
    problem = synthetic_problem(levels=6).problem
    ladder = [c.levels for c in OptunaSearch(problem, rungs=6).ask(6)]
    assert sorted(ladder) == [(level,) * 8 for level in range(6)]
    assert (0,) * 8 not in [c.levels for c in OptunaSearch(problem, rungs=0).ask(6)]


def test_the_study_learns_of_every_network_that_was_measured():
    """Also of repaired ones: the complete trials of the study are exactly what was told."""
    synthetic = synthetic_problem(budget=0.4)
    searcher = OptunaSearch(synthetic.problem)
    found = trace(searcher, synthetic.problem, lambda _, c: synthetic.evaluate(c), 50)
    complete = searcher._study.get_trials(states=[optuna.trial.TrialState.COMPLETE])
    assert {tuple(trial.params.values()) for trial in complete} == {c.levels for c in found}
    values = {tuple(t.params.values()): tuple(t.values) for t in complete}
    answer = synthetic.evaluate(found[-1]).values
    assert values[found[-1].levels] == (-answer["accuracy"], answer["macs"])


def test_trials_know_by_how_much_of_the_dense_cost_they_exceed_or_keep_a_bound():
    synthetic = synthetic_problem(budget=0.4)
    searcher = OptunaSearch(synthetic.problem, sampler="RandomSampler", rungs=0)
    run(searcher, synthetic, 20)
    dense = synthetic.problem.costs.dense()["macs"]
    seen = {COMPLETE: [], PRUNED: []}
    for trial in searcher._study.trials:
        macs = synthetic.problem.costs_of(Candidate(tuple(trial.params.values())))["macs"]
        assert trial.constraints == {"macs": pytest.approx(macs / dense - 0.4)}
        seen[trial.state].append(trial.constraints["macs"])
    assert max(seen[COMPLETE]) <= 0 < min(seen[PRUNED])


def test_tpe_proposes_less_outside_the_bounds_than_chance_does():
    """It learns from pruned trials with constraints; chance does not."""
    synthetic = synthetic_problem(units=10, levels=6, budget=0.4)
    shares = {}
    for sampler in ("TPESampler", "RandomSampler"):
        searcher = OptunaSearch(synthetic.problem, sampler=sampler, seed=1)
        run(searcher, synthetic, 60)
        states = [trial.state for trial in searcher._study.trials]
        shares[sampler] = states.count(PRUNED) / len(states)
    assert shares["TPESampler"] < shares["RandomSampler"] * 2 / 3


def test_a_network_that_fails_fails_in_the_study():
    problem = synthetic_problem().problem
    searcher = OptunaSearch(problem, rungs=1)
    searcher.tell([Evaluation(c, status="failed", cause="a test") for c in searcher.ask(1)])
    assert [trial.state for trial in searcher._study.trials] == [FAIL]


def test_trials_that_mean_a_network_under_way_are_answered_with_it():
    """Equal sensitivities of any size mean the same plan."""
    synthetic = synthetic_problem(units=3, levels=3)
    searcher = OptunaSearch(synthetic.problem, over="sensitivities", budget=0.5, rungs=0, sampler="RandomSampler")
    candidates = searcher.ask(4)
    running = sum(map(len, searcher._trials._open.values()))
    assert running > len(candidates)
    searcher.tell([synthetic.evaluate(candidate) for candidate in candidates])
    assert [trial.state for trial in searcher._study.trials].count(COMPLETE) == running


def test_sensitivities_start_with_equal_ones_over_the_range_of_budgets():
    problem = synthetic_problem(units=4, levels=6).problem
    least, most = problem.reach()["macs"]
    searcher = OptunaSearch(problem, over="sensitivities", rungs=3)
    costs = problem.cost_values(np.array([c.levels for c in searcher.ask(3)]))["macs"]
    assert costs[:2].tolist() == [most, least]
    assert least < costs[2] <= (least + most) / 2


@pytest.mark.parametrize("objectives", [1, 2])
def test_a_budget_holds_for_every_network_over_sensitivities(objectives):
    synthetic = synthetic_problem(units=5, levels=5, objectives=objectives, coupled=True)
    dense = synthetic.problem.costs.dense()["macs"]
    searcher = OptunaSearch(synthetic.problem, over="sensitivities", budget=0.6)
    told = run(searcher, synthetic, 12)
    assert max(e.values["macs"] for e in told) <= 0.6 * dense
    assert len(searcher._study.directions) == 1


def test_one_objective_over_sensitivities_has_half_the_cost_as_its_budget():
    synthetic = synthetic_problem(units=4, levels=5, objectives=1)
    told = run(OptunaSearch(synthetic.problem, over="sensitivities"), synthetic, 6)
    assert max(e.values["macs"] for e in told) <= 0.5 * synthetic.problem.costs.dense()["macs"]


def test_sensitivities_find_a_better_front_than_levels_at_equal_evaluations():
    """The use of the decoder: the plan trades units off, and the sampler only has to find the sensitive ones."""
    volumes = {}
    for over in ("levels", "sensitivities"):
        synthetic = synthetic_problem(units=12, levels=8, seed=2, interaction=0.5)
        told = run(OptunaSearch(synthetic.problem, over=over, sampler="RandomSampler"), synthetic, 60)
        losses = synthetic.problem.losses(told) / [1.0, synthetic.problem.costs.dense()["macs"]]
        volumes[over] = hypervolume(losses, (0.0, 1.0))
    assert volumes["sensitivities"] > volumes["levels"]


def test_cma_es_searches_sensitivities_at_one_budget():
    pytest.importorskip("cmaes")
    synthetic = synthetic_problem(units=6, levels=5)
    searcher = OptunaSearch(synthetic.problem, over="sensitivities", sampler="CmaEsSampler", budget=0.5)
    assert len(run(searcher, synthetic, 30)) == 30


@pytest.mark.parametrize("sampler", ["GridSampler", "BruteForceSampler"])
def test_samplers_that_try_a_whole_space_try_all_that_is_within_the_bounds(sampler):
    synthetic = synthetic_problem(units=3, levels=3, budget=0.6)
    units = synthetic.problem.space.units
    options = {"search_space": {unit: [0, 1, 2] for unit in units}} if sampler == "GridSampler" else {}
    told = run(OptunaSearch(synthetic.problem, sampler=sampler, sampler_options=options, rungs=2), synthetic, 40)
    levels = np.array(list(itertools.product(range(3), repeat=3)))
    assert len(told) == synthetic.problem.feasible(levels).sum()


def test_a_sampler_of_ones_own_is_named_by_its_module():
    problem = synthetic_problem().problem
    searcher = OptunaSearch(problem, sampler=f"{__name__}:Corners", sampler_options={"wide": False}, rungs=0)
    assert searcher.ask(1) == [problem.space.smallest]


def test_all_samplers_of_optuna_that_can_be_made_are_known():
    assert {"TPESampler", "GPSampler", "GridSampler", "BruteForceSampler", "CmaEsSampler"} <= known_classes(
        "sampler"
    ).keys()
    assert "BaseSampler" not in known_classes("sampler")


def test_logging_and_warnings_are_left_as_they_were():
    before = optuna.logging.get_verbosity(), list(warnings.filters)
    searcher = OptunaSearch(synthetic_problem().problem, sampler="NSGAIIISampler")
    searcher.ask(3)
    assert (optuna.logging.get_verbosity(), list(warnings.filters)) == before


def test_a_sampler_for_one_objective_names_those_for_several():
    with pytest.raises(ConfigError, match=r"'CmaEsSampler' handles one objective, got 2.*TPESampler.*budget: 0.5"):
        OptunaSearch(synthetic_problem().problem, sampler="CmaEsSampler")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Sampler", "'no_such_module:Sampler' cannot be imported: No module named 'no_such_module'"),
        ("optuna.samplers:Nobody", "has no attribute 'Nobody'"),
        ("optuna.trial:Trial", "expected sampler 'optuna.trial:Trial' to be a subclass of optuna.samplers.BaseSampler"),
    ],
)
def test_a_sampler_of_ones_own_that_is_none_is_an_error(name, message):
    with pytest.raises(ConfigError, match=message):
        OptunaSearch(synthetic_problem().problem, sampler=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over": "widths"}, r"expected over to be one of \['levels', 'sensitivities'\], got 'widths'"),
        ({"budget": 0.5}, "expected no budget with over: levels"),
        ({"over": "sensitivities", "budget": 1.5}, "expected budget to be a share above 0 and at most 1, got 1.5"),
    ],
)
def test_wrong_options_are_errors_that_say_what_is_expected(options, message):
    with pytest.raises(ConfigError, match=message):
        OptunaSearch(synthetic_problem().problem, **options)


def test_an_unknown_sampler_names_the_closest():
    with pytest.raises(ConfigError, match=r"got 'NSGA2Sampler' \(did you mean 'NSGAIISampler'"):
        OptunaSearch(synthetic_problem().problem, sampler="NSGA2Sampler")


def test_an_option_the_sampler_refuses_is_an_error_that_quotes_it():
    with pytest.raises(ConfigError, match=r"NSGAIISampler does not take sampler_options.*populaton"):
        OptunaSearch(synthetic_problem().problem, sampler_options={"populaton": 3})


def test_a_package_that_is_missing_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.delitem(sys.modules, "scipy.stats", raising=False)

    def sample(*_):
        importlib.import_module("scipy.stats")  # as the sampler of Optuna does

    monkeypatch.setattr(optuna.samplers.QMCSampler, "sample_relative", sample)
    searcher = OptunaSearch(synthetic_problem().problem, sampler="QMCSampler", rungs=0)
    message = (
        r"QMCSampler needs a package that is not installed: .*Install it with: pip install 'autoprune\[samplers\]'"
    )
    with pytest.raises(ConfigError, match=message):
        searcher.ask(5)
