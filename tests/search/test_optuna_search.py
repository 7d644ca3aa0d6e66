from __future__ import annotations

import warnings

import optuna
import pytest

from autoprune.errors import ConfigError
from autoprune.search.optuna_search import OptunaSearch
from autoprune.testing import check_searcher, synthetic_problem, trace


@pytest.mark.parametrize("sampler", ["RandomSampler", "NSGAIIISampler", "TPESampler"])
def test_other_samplers_keep_the_contract_too(sampler):
    # few networks of the ladder, so that 15 evaluations are enough to leave TPE's ten random start-up trials
    check_searcher(lambda problem, seed: OptunaSearch(problem, seed=seed, sampler=sampler, rungs=2), evaluations=15)


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


def test_logging_and_warnings_are_left_as_they_were():
    before = optuna.logging.get_verbosity(), list(warnings.filters)
    searcher = OptunaSearch(synthetic_problem().problem, sampler="NSGAIIISampler")
    searcher.ask(3)
    assert (optuna.logging.get_verbosity(), list(warnings.filters)) == before


def test_a_sampler_for_one_objective_names_those_for_several():
    with pytest.raises(ConfigError, match=r"'CmaEsSampler' handles one objective, got 2.*NSGAIISampler.*TPESampler"):
        OptunaSearch(synthetic_problem().problem, sampler="CmaEsSampler")


def test_an_unknown_sampler_names_the_closest():
    with pytest.raises(ConfigError, match=r"got 'NSGA2Sampler'. Did you mean 'NSGAIISampler'"):
        OptunaSearch(synthetic_problem().problem, sampler="NSGA2Sampler")


def test_an_option_the_sampler_refuses_is_an_error_that_quotes_it():
    searcher = OptunaSearch(synthetic_problem().problem, sampler_options={"populaton": 3})
    with pytest.raises(ConfigError, match=r"NSGAIISampler does not take sampler_options.*populaton"):
        searcher.ask(1)


def test_a_package_that_is_missing_is_named(monkeypatch):
    def sample(*_):
        raise ModuleNotFoundError("No module named 'scipy'")

    monkeypatch.setattr(optuna.samplers.QMCSampler, "sample_relative", sample)
    searcher = OptunaSearch(synthetic_problem().problem, sampler="QMCSampler", rungs=0)
    with pytest.raises(ConfigError, match="QMCSampler needs a package that is not installed: No module named 'scipy'"):
        searcher.ask(5)
