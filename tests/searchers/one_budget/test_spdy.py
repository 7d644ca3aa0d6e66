"""The search over sensitivities: its course step by step, and against the best of all networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.errors import ConfigError
from autoprune.searchers.one_budget.spdy import SpdySearch
from autoprune.testing import synthetic_problem, trace


def answered(searcher, synthetic, evaluations=500):
    told = []
    trace(searcher, synthetic.problem, lambda _, c: told.append(synthetic.evaluate(c)) or told[-1], evaluations)
    return told


@pytest.mark.parametrize("coupled", [False, True])
def test_it_finds_the_best_of_all_networks_where_damage_is_what_the_prior_says(coupled):
    """Levels of equal width steps: the synthetic damage of a unit is its weight times the prior."""
    synthetic = synthetic_problem(units=5, levels=5, seed=2, interaction=0.0, coupled=coupled)
    space = synthetic.problem.space
    rows = np.stack(np.unravel_index(np.arange(space.count), space.sizes), axis=1)
    within = rows[synthetic.problem.cost_values(rows)["macs"] <= 0.4 * synthetic.problem.costs.dense()["macs"]]
    told = answered(SpdySearch(synthetic.problem, budget=0.4), synthetic)
    assert min(e.values["kl"] for e in told) == pytest.approx(min(synthetic.kl(row) for row in within))


def test_every_network_is_within_the_budget_and_as_large_as_that_allows():
    synthetic = synthetic_problem(units=6, levels=6, coupled=True)
    costs = [
        e.values["macs"] / synthetic.problem.costs.dense()["macs"]
        for e in answered(SpdySearch(synthetic.problem), synthetic)
    ]
    assert max(costs) <= 0.5
    assert np.median(costs) > 0.45


def test_neighbours_differ_in_a_share_of_entries_that_shrinks_to_one():
    synthetic = synthetic_problem(units=20, levels=4)
    searcher = SpdySearch(synthetic.problem, draws=3, attempts=4, share=0.1)
    answered(searcher, synthetic, 3)
    changed = []
    while (drawn := searcher._next()) is not None:
        changed.append(int((drawn != searcher.sensitivities).sum()))
    assert changed == [2] * 4 + [1] * 4


def test_something_better_is_kept_at_once_and_attempts_begin_anew():
    synthetic = synthetic_problem(units=20, levels=4)
    searcher = SpdySearch(synthetic.problem, draws=1, attempts=10)
    first = searcher.ask(1)[0]
    searcher.tell([Evaluation(first, {"accuracy": 0.5, "macs": 1.0, "kl": 1.0})])
    before = searcher.sensitivities
    better = searcher.ask(1)[0]
    assert searcher._failed >= 1
    searcher.tell([Evaluation(better, {"accuracy": 0.6, "macs": 1.0, "kl": 0.5})])
    assert searcher._failed == 0
    assert 1 <= (searcher.sensitivities != before).sum() <= 2


def test_failed_draws_leave_nothing_to_begin_from():
    synthetic = synthetic_problem(units=6, levels=4)
    searcher = SpdySearch(synthetic.problem, draws=5)
    searcher.tell([Evaluation(c, status="failed", cause="a test") for c in searcher.ask(100)])
    assert searcher.ask(1) == []
    assert searcher.sensitivities is None


def test_a_budget_of_the_problem_is_kept_too():
    synthetic = synthetic_problem(units=6, levels=6, budget=0.3)
    told = answered(SpdySearch(synthetic.problem, budget=0.5, draws=10, attempts=3), synthetic)
    assert max(e.values["macs"] for e in told) <= 0.3 * synthetic.problem.costs.dense()["macs"]


def test_options_out_of_range_and_costs_alone_are_errors():
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match="expected share to be above 0 and at most 1, got 0"):
        SpdySearch(problem, share=0)
    with pytest.raises(ConfigError, match="expected draws to be a whole number of at least 1, got 0"):
        SpdySearch(problem, draws=0)
    with pytest.raises(ConfigError, match="expected an objective that is measured"):
        SpdySearch(replace(problem, objectives=problem.objectives[1:]))
