"""Optuna's pruners behind the contract: beside Optuna's own loop, with answers in any order, part by part."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

import numpy as np
import optuna
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.searchers.optuna.classes import known_classes, quiet
from autoprune.searchers.optuna.search import OptunaSearch
from autoprune.testing import check_searcher, synthetic_problem, trace

COMPLETE, PRUNED, FAIL = (optuna.trial.TrialState[name] for name in ("COMPLETE", "PRUNED", "FAIL"))
AT_A_BUDGET = {"over": "sensitivities", "budget": 0.5, "sampler": "RandomSampler"}
PRUNERS = {
    "MedianPruner": {"n_startup_trials": 3},
    "PercentilePruner": {"percentile": 25.0, "n_startup_trials": 3},
    "SuccessiveHalvingPruner": {"min_resource": 1, "reduction_factor": 2},
    "HyperbandPruner": {"min_resource": 1, "max_resource": 8, "reduction_factor": 2},
    "ThresholdPruner": {"upper": -0.3},
    "NopPruner": {},
}


class OneObjective:
    """A problem of one objective, whose scores on fewer images are farther from those on all, in a way of their own."""

    def __init__(self, **options) -> None:
        self.synthetic = synthetic_problem(objectives=1, **{"units": 10, "levels": 12, **options})
        self.problem = self.synthetic.problem
        self.told: list[Evaluation] = []

    def accuracy(self, levels, fidelity) -> float:
        noise = np.random.default_rng([*levels, round(1000 * fidelity)]).normal()
        exact = self.synthetic.evaluate(Candidate(tuple(levels))).values["accuracy"]
        return exact + 0.2 * noise * (1 / fidelity - 1) ** 0.5

    def __call__(self, _, candidate) -> Evaluation:
        values = {**self.synthetic.evaluate(candidate).values}
        values["accuracy"] = self.accuracy(candidate.levels, candidate.fidelity)
        self.told.append(Evaluation(candidate, values))
        return self.told[-1]

    def searcher(self, **options) -> OptunaSearch:
        defaults = {"sampler": "RandomSampler", "rungs": 0, "eta": 2, "least": 1 / 8}
        return OptunaSearch(self.problem, **{**defaults, **options})


def said(study, count):
    """What a study knows of its first trials."""
    return [(t.state, t.params, t.intermediate_values, t.value) for t in study.trials[:count]]


def by_optuna(problem, pruner, sampler, trials):
    """A study that Optuna's own loop made, with fidelities as steps of an ordinary objective function."""

    def objective(trial):
        levels = [trial.suggest_int(unit, 0, len(c) - 1) for unit, c in zip(units, counts, strict=True)]
        for step in (1, 2, 4, 8):
            loss = -problem.accuracy(levels, step / 8)
            trial.report(loss, step)
            if step < 8 and trial.should_prune():
                raise optuna.TrialPruned
        return loss

    units, counts = problem.problem.space.units, problem.problem.space.levels
    with quiet():
        study = optuna.create_study(sampler=sampler, pruner=pruner, study_name="autoprune")
        study.optimize(objective, n_trials=trials)
    return study


@pytest.mark.parametrize("sampler", ["RandomSampler", "TPESampler"])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_one_at_a_time_it_is_optunas_own_loop(pruner, sampler):
    """Every trial: what was chosen, what was reported, where it ended."""
    made = getattr(optuna.pruners, pruner)(**PRUNERS[pruner])
    trials = 40 if sampler == "RandomSampler" else 15
    study = by_optuna(OneObjective(), made, getattr(optuna.samplers, sampler)(seed=5), trials)
    problem = OneObjective()
    searcher = problem.searcher(pruner=pruner, pruner_options=PRUNERS[pruner], sampler=sampler, seed=5)
    steps = sum(len(trial.intermediate_values) for trial in study.trials)
    trace(searcher, problem.problem, problem, steps)
    assert said(searcher._study, trials) == said(study, trials)
    states = Counter(trial.state for trial in study.trials)
    assert states[COMPLETE] > 0
    assert (states[PRUNED] > 0) == (pruner != "NopPruner")


@pytest.mark.parametrize("pruner", PRUNERS)
def test_trials_under_way_each_hear_their_own_answers(pruner):
    """Eight at once, answered in a random order: every trial has the losses of its own network, at all its steps."""
    problem, rng = OneObjective(), np.random.default_rng(3)
    searcher = problem.searcher(pruner=pruner, pruner_options=PRUNERS[pruner])
    flying: list[Candidate] = []
    for _ in range(200):
        flying += searcher.ask(8 - len(flying))
        searcher.tell([problem(0, flying.pop(rng.integers(len(flying))))])
    assert len(flying) == 7
    asked = Counter(e.candidate.levels for e in problem.told)
    ended = [trial for trial in searcher._study.trials if trial.state in (COMPLETE, PRUNED)]
    assert len(ended) > 20
    for trial in ended:
        levels = tuple(trial.params.values())
        known = [(2**k, -problem.accuracy(levels, 2**k / 8)) for k in range(asked[levels])]
        assert list(trial.intermediate_values.items()) == known
        assert (trial.state == COMPLETE) == (asked[levels] == 4)


@pytest.mark.parametrize(
    ("pruner", "options"), [("HyperbandPruner", {}), ("MedianPruner", {}), ("WilcoxonPruner", {"p_threshold": 0.3})]
)
def test_pruners_keep_the_contract(pruner, options):
    check_searcher(
        lambda problem, seed: OptunaSearch(
            problem, seed=seed, pruner=pruner, pruner_options=options, rungs=2, **AT_A_BUDGET
        ),
        evaluations=9,
    )


def test_levels_within_bounds_are_pruned_too():
    problem = OneObjective(budget=0.4)
    searcher = problem.searcher(pruner="MedianPruner", rungs=3)
    found = trace(searcher, problem.problem, problem, 80, slots=4)
    assert {c.fidelity for c in found} == {1 / 8, 1 / 4, 1 / 2, 1.0} == {*searcher.fidelities}
    assert len(found) == 80


def test_a_small_space_is_scored_to_the_last_network():
    problem = OneObjective(units=2, levels=4)
    found = trace(problem.searcher(pruner="MedianPruner"), problem.problem, problem, 1000, slots=3)
    assert len({c.levels for c in found}) == 16


def test_without_a_pruner_everything_is_scored_on_all_images():
    assert not hasattr(OneObjective().searcher(), "fidelities")


def test_resources_follow_from_the_fidelities_where_they_are_not_given():
    problem = OneObjective()
    hyperband = problem.searcher(pruner="HyperbandPruner", eta=3, least=1 / 27)._study.pruner
    assert (hyperband._min_resource, hyperband._max_resource, hyperband._reduction_factor) == (1, 27, 3)
    options = {"reduction_factor": 4}
    halving = problem.searcher(pruner="SuccessiveHalvingPruner", pruner_options=options)._study.pruner
    assert (halving._min_resource, halving._reduction_factor) == (1, 4)


def test_a_network_that_fails_on_a_part_fails_in_the_study():
    problem = OneObjective()
    searcher = problem.searcher(pruner="NopPruner")
    (candidate,) = searcher.ask(1)
    searcher.tell([problem(0, candidate)])
    (again,) = searcher.ask(1)
    assert again == Candidate(candidate.levels, 1 / 4)
    searcher.tell([Evaluation(again, status="failed", cause="a test")])
    (trial,) = searcher._study.trials
    assert (trial.state, len(trial.intermediate_values)) == (FAIL, 1)


def test_trials_that_mean_the_same_network_end_alike():
    """Equal sensitivities of any size mean the same plan."""
    problem = OneObjective(units=3, levels=3)
    searcher = problem.searcher(pruner="ThresholdPruner", pruner_options={"upper": -2.0}, **AT_A_BUDGET)
    candidates = searcher.ask(4)
    assert len(searcher._study.trials) > len(candidates)
    searcher.tell([problem(0, candidate) for candidate in candidates])
    assert {(t.state, len(t.intermediate_values)) for t in searcher._study.trials} == {(PRUNED, 1)}


def test_what_is_told_unasked_or_twice_does_no_harm():
    problem = OneObjective()
    searcher = problem.searcher(pruner="NopPruner")
    (candidate,) = searcher.ask(1)
    answer = problem(0, candidate)
    whole = problem(0, Candidate(candidate.levels))
    searcher.tell([answer, answer, problem(0, Candidate((0,) * 10, 0.3)), whole, whole])
    assert candidate.levels not in {c.levels for c in searcher.ask(5)}
    assert searcher._study.trials[0].state == COMPLETE


def in_parts(problem, difficulty, noise=0.01):
    """Answers with values by part: `difficulty` is each part's own, the same for all networks."""

    def answer(_, candidate):
        exact = problem.synthetic.evaluate(candidate).values
        count = round(np.log2(candidate.fidelity * 32)) + 1
        spread = noise * np.random.default_rng([*candidate.levels]).normal(size=6)
        parts = (exact["accuracy"] + difficulty + spread)[:count].tolist()
        problem.told.append(
            Evaluation(candidate, {**exact, "accuracy": float(np.mean(parts))}, parts={"accuracy": parts})
        )
        return problem.told[-1]

    return answer


def run_wilcoxon(problem, difficulty, networks):
    searcher = problem.searcher(pruner="WilcoxonPruner", least=1 / 32)
    assert searcher.in_parts
    answer, flying = in_parts(problem, difficulty), deque()
    while len({e.candidate.levels for e in problem.told}) < networks:
        flying += searcher.ask(1)
        searcher.tell([answer(0, flying.popleft())])
    return searcher


def test_wilcoxons_test_compares_networks_on_the_same_parts():
    """Parts differ far more than networks do: means say little, pairs nearly everything."""
    problem = OneObjective()
    searcher = run_wilcoxon(problem, np.array([3.0, -2.0, 5.0, 0.0, -4.0, 1.0]), 40)
    states = Counter(trial.state for trial in searcher._study.trials)
    assert states[PRUNED] > 25
    first = searcher._study.trials[0]
    expected = [-value for value in problem.told[5].parts["accuracy"]]
    assert list(first.intermediate_values.values()) == pytest.approx(expected)


def test_wilcoxons_test_needs_values_by_part():
    problem = OneObjective()
    searcher = problem.searcher(pruner="WilcoxonPruner")
    (candidate,) = searcher.ask(1)
    with pytest.raises(ConfigError, match="that is measured part by part, got 'accuracy'"):
        searcher.tell([problem(0, candidate)])


def test_a_pruner_that_wraps_another_names_it():
    options = {"wrapped_pruner": "WilcoxonPruner", "patience": 1}
    searcher = OneObjective().searcher(pruner="PatientPruner", pruner_options=options)
    assert isinstance(searcher._study.pruner._wrapped_pruner, optuna.pruners.WilcoxonPruner)
    assert searcher.in_parts


class Never(optuna.pruners.BasePruner):
    """A pruner of one's own."""

    def prune(self, study, trial):
        return False


def test_a_pruner_of_ones_own_is_named_by_its_module():
    problem = OneObjective()
    searcher = problem.searcher(pruner=f"{__name__}:Never")
    trace(searcher, problem.problem, problem, 8)
    assert [trial.state for trial in searcher._study.trials] == [COMPLETE, COMPLETE]


def test_all_pruners_of_optuna_are_known():
    others = {"WilcoxonPruner", "PatientPruner"}
    assert known_classes("pruner").keys() == {*PRUNERS, *others}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruner": "HyperBandPruner"}, r"got 'HyperBandPruner' \(did you mean 'HyperbandPruner'"),
        ({"pruner": "optuna.trial:Trial"}, "expected pruner 'optuna.trial:Trial' to be a subclass of optuna.pruners.B"),
        ({"pruner": "no_such:P"}, "pruner 'no_such:P' cannot be imported"),
        (
            {"pruner": "MedianPruner", "pruner_options": {"warmup": 3}},
            "MedianPruner does not take pruner_options.*warmup",
        ),
        ({"pruner": "PercentilePruner"}, "PercentilePruner does not take pruner_options.*percentile"),
        ({"pruner_options": {"n_startup_trials": 3}}, "expected no pruner_options without a pruner"),
        ({"pruner": "MedianPruner", "least": 0.0}, "expected least to be a share above 0"),
        ({"pruner": "MedianPruner", "eta": 1}, "expected eta to be a whole number of at least 2, got 1"),
    ],
)
def test_wrong_options_of_pruners_are_errors_that_say_what_is_expected(options, message):
    with pytest.raises(ConfigError, match=message):
        OneObjective().searcher(**options)


@pytest.mark.parametrize("objectives", [2, 3])
def test_pruners_are_for_one_objective(objectives):
    problem = synthetic_problem(objectives=objectives).problem
    with pytest.raises(
        ConfigError, match=rf"expected one objective with a pruner, got {objectives}. Search at one bud"
    ):
        OptunaSearch(problem, pruner="MedianPruner")
    assert OptunaSearch(problem, pruner="MedianPruner", **AT_A_BUDGET).fidelities == pytest.approx((1 / 9, 1 / 3, 1))


def test_a_cost_is_nothing_to_prune_by():
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match="expected an objective that is measured with a pruner, got 'macs', a cost"):
        OptunaSearch(replace(problem, objectives=problem.objectives[1:]), pruner="MedianPruner")


def test_a_package_that_a_pruner_misses_is_named(monkeypatch):
    def prune(*_):
        raise ModuleNotFoundError("No module named 'scipy'")

    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", prune)
    problem = OneObjective()
    searcher = problem.searcher(pruner="MedianPruner")
    with pytest.raises(
        ConfigError, match="MedianPruner needs a package that is not installed: No module named 'scipy'"
    ):
        searcher.tell([problem(0, searcher.ask(1)[0])])
