"""Predictors in the loop: what they learn, how far off they are, and that they find what random draws do not."""

from __future__ import annotations

import logging
import math
import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError
from autoprune.searchers.fronts.predictor import Misses, Predictor
from autoprune.searchers.fronts.random import RandomSearch
from autoprune.searchers.fronts.surrogate import SurrogateSearch, imagined
from autoprune.testing import synthetic_problem, trace

SPACE = SearchSpace(("a", "b", "c"), ((8, 6, 4, 2),) * 3)


def answered(searcher, synthetic, evaluations):
    told = []
    trace(searcher, synthetic.problem, lambda _, c: told.append(synthetic.evaluate(c)) or told[-1], evaluations)
    return told


def test_a_ridge_learns_a_sum_of_what_levels_do():
    rng = np.random.default_rng(0)
    damage = rng.random((3, 4))
    levels = rng.integers(0, 4, size=(40, 3))
    predict = Predictor(SPACE, "ridge").fit(levels, damage[np.arange(3), levels].sum(axis=1), 0)
    everything = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    assert predict(everything) == pytest.approx(damage[np.arange(3), everything].sum(axis=1), abs=0.02)


def test_boosting_learns_a_product_that_a_ridge_cannot():
    levels = np.stack(np.unravel_index(np.arange(64), (4, 4, 4)), axis=1)
    losses = (levels[:, 0] >= 2) * np.where(levels[:, 1] >= 2, 1.0, -1.0)
    off = {kind: Predictor(SPACE, kind).fit(levels, losses, 0)(levels) - losses for kind in ("ridge", "boosting")}
    assert np.abs(off["boosting"]).mean() < 0.1 < 0.3 < np.abs(off["ridge"]).mean()


def test_misses_are_those_of_another_library():
    rng = np.random.default_rng(1)
    predicted, measured = rng.random(20), rng.random(20)
    misses = Misses.of(predicted, measured)
    assert misses.mae == pytest.approx(np.mean(np.abs(predicted - measured)))
    assert misses.rmse == pytest.approx(np.linalg.norm(predicted - measured) / math.sqrt(20))
    assert misses.tau == pytest.approx(kendalltau(predicted, measured).statistic)


def test_each_round_says_how_far_off_predictions_on_unseen_networks_were(caplog):
    synthetic = synthetic_problem(units=8, levels=6, seed=1)
    searcher = SurrogateSearch(synthetic.problem, population=20, imagined=200)
    with caplog.at_level(logging.INFO):
        answered(searcher, synthetic, 80)
    assert [r.measured for r in searcher.rounds] == [20, 20, 20, 20]
    assert [r.learned_from for r in searcher.rounds] == [0, 20, 40, 60]
    assert not searcher.rounds[0].misses
    assert all(r.misses.keys() == {"accuracy"} for r in searcher.rounds[1:])
    assert searcher.rounds[-1].misses["accuracy"].mae < searcher.rounds[1].misses["accuracy"].mae
    assert [record.message.split(":")[0] for record in caplog.records] == [f"round {n}" for n in (1, 2, 3, 4)]
    assert "accuracy predicted with mean error" in caplog.records[-1].message
    assert searcher.remark.startswith("accuracy predicted with tau ")


def test_predictions_do_not_see_the_answers_they_are_compared_with():
    synthetic = synthetic_problem(units=8, levels=6, seed=1)
    misses = []
    for wrong in (0.0, 1000.0):  # added to all answers of the second round
        searcher = SurrogateSearch(synthetic.problem, population=10, imagined=50)
        answered(searcher, synthetic, 10)
        for candidate in searcher.ask(10):
            good = synthetic.evaluate(candidate).values
            searcher.tell([Evaluation(candidate, {**good, "accuracy": good["accuracy"] + wrong})])
        misses.append(searcher.rounds[1].misses["accuracy"].mae)
    assert misses[1] == pytest.approx(1000, abs=1)
    assert misses[0] < 1


def test_it_finds_nearly_the_whole_front_of_a_small_space():
    synthetic = synthetic_problem(units=6, levels=6, seed=3, coupled=True)
    space, dense = synthetic.problem.space, synthetic.problem.costs.dense()["macs"]
    everything = np.stack(np.unravel_index(np.arange(space.count), space.sizes), axis=1)
    removed = 1 - space.kept(everything) / space.kept(space.dense.levels)
    kl = removed**2 @ synthetic.weights + (removed[:, :-1] * removed[:, 1:]) @ synthetic.pairs
    costs = synthetic.problem.cost_values(everything)["macs"] / dense
    best = hypervolume(np.stack([-0.9 * np.exp(-kl) - 0.1, costs], axis=1), (0.0, 1.0))

    def share(searcher):
        losses = synthetic.problem.losses(answered(searcher, synthetic, 200)) / [1.0, dense]
        return hypervolume(losses, (0.0, 1.0)) / best

    assert share(SurrogateSearch(synthetic.problem)) > 0.99 > share(RandomSearch(synthetic.problem))


def test_the_next_round_begins_when_half_of_one_is_answered():
    synthetic = synthetic_problem(units=8, levels=6)
    searcher = SurrogateSearch(synthetic.problem, population=10, imagined=50)
    first = searcher.ask(10)
    searcher.tell([synthetic.evaluate(candidate) for candidate in first[:4]])
    assert searcher.ask(1) == []
    searcher.tell([synthetic.evaluate(first[4])])
    assert len(searcher.ask(10)) == 10


def test_a_first_round_that_failed_is_followed_by_random_networks():
    problem = synthetic_problem(units=8, levels=6).problem
    searcher = SurrogateSearch(problem, population=10, imagined=50)
    searcher.tell([Evaluation(candidate, status="failed", cause="a test") for candidate in searcher.ask(10)])
    assert len(searcher.ask(10)) == 10
    assert searcher.remark == ""


def test_an_unknown_predictor_and_a_missing_package_are_errors(monkeypatch):
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match=r"expected predictor to be one of \['ridge', 'boosting'\], got 'forest'"):
        SurrogateSearch(problem, predictor="forest")
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(ConfigError, match=r"needs scikit-learn.*pip install 'autoprune\[surrogate\]'"):
        SurrogateSearch(problem)


def test_predicted_losses_keep_the_direction_of_an_objective():
    problem = synthetic_problem().problem
    told = imagined(problem, problem.space.dense.levels, [-0.9, 100.0])
    assert told == Evaluation(Candidate((0,) * 8), {"accuracy": 0.9, "macs": 100.0})
