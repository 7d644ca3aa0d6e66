from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from allocation_instances import K1_FRONT

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.objective import Objective
from autoprune.errors import ConfigError
from autoprune.plan.ladder import uniform_levels
from autoprune.searchers.fronts.additive import AdditiveSearch
from autoprune.testing import synthetic_problem, trace


def measured(synthetic, searcher, evaluations=1000, bad=()):
    """Everything told, in order; networks in `bad` fail."""
    told = []

    def answer(_, candidate):
        failed = Evaluation(candidate, status="failed", cause="a test")
        told.append(failed if candidate.levels in bad else synthetic.evaluate(candidate))
        return told[-1]

    trace(searcher, synthetic.problem, answer, evaluations)
    return told


def planned(synthetic, told):
    """Those that change several units and are not uniform, as the rivals of plans are."""
    uniform = set(map(tuple, uniform_levels(synthetic.problem.space).tolist()))
    several = [e for e in told if np.count_nonzero(e.candidate.levels) > 1]
    return [e for e in several if e.candidate.levels not in uniform]


def test_probes_come_first_and_plans_once_all_are_answered():
    synthetic = synthetic_problem(units=3, levels=4)
    searcher = AdditiveSearch(synthetic.problem, plans=5)
    asked = searcher.ask(100)
    assert len(asked) == 1 + 3 * 3
    assert searcher.ask(1) == []
    searcher.tell([synthetic.evaluate(c) for c in asked[1:]])
    assert searcher.ask(1) == []
    searcher.tell([synthetic.evaluate(asked[0])])
    plans = searcher.ask(100)
    assert 0 < len(plans) <= 5
    assert all(np.count_nonzero(plan.levels) > 1 for plan in plans)


def test_plans_at_enough_budgets_are_the_published_front_of_k1(k1):
    told = measured(k1, AdditiveSearch(k1.problem, plans=31))
    front = Front.of(told, k1.problem.objectives, {})
    assert sorted((e.values["cost"], round(e.values["error"], 9)) for e in front) == K1_FRONT
    assert front.hypervolume((29, 37)) == pytest.approx(657.5)


def test_plans_are_optimal_where_damages_really_add_up():
    """Ten units: every plan's accuracy equals or betters that of 2,000 random networks that cost no more."""
    synthetic = synthetic_problem(units=10, levels=5, interaction=0.0)
    told = measured(synthetic, AdditiveSearch(synthetic.problem))
    plans = planned(synthetic, told)
    rows = np.random.default_rng(0).integers(0, 5, (2000, 10))
    kl = np.array([synthetic.kl(row) for row in rows])
    macs = synthetic.problem.cost_values(rows)["macs"]
    assert len(plans) >= 20
    assert all((kl[macs <= e.values["macs"]] >= e.values["kl"] - 1e-12).all() for e in plans)


def test_a_failed_probe_keeps_its_level_out_of_every_plan():
    synthetic = synthetic_problem(units=4, levels=4)
    told = measured(synthetic, AdditiveSearch(synthetic.problem), bad={(0, 2, 0, 0)})
    plans = [e.candidate.levels for e in planned(synthetic, told)]
    assert plans
    assert all(levels[1] != 2 for levels in plans)


def test_a_searcher_whose_probes_all_fail_ends():
    synthetic = synthetic_problem(units=3, levels=3)
    problem = replace(synthetic.problem, distortion=None)
    searcher = AdditiveSearch(problem)
    asked = searcher.ask(100)
    searcher.tell([Evaluation(c, status="failed", cause="a test") for c in asked])
    assert searcher.ask(1) == []


def test_with_a_budget_the_best_plan_betters_every_uniform_network():
    synthetic = synthetic_problem(units=12, levels=8, budget=0.5, seed=2)
    told = measured(synthetic, AdditiveSearch(synthetic.problem))
    limit = synthetic.problem.bounds[0].value
    assert all(e.values["macs"] <= limit for e in told)
    best = max(e.values["accuracy"] for e in told)
    uniform = synthetic.evaluate(replace(told[0].candidate, levels=(4,) * 12))
    assert uniform.values["macs"] <= limit
    assert best > uniform.values["accuracy"] + 0.05


def test_capped_probes_still_reach_the_smallest_network():
    synthetic = synthetic_problem(units=5, levels=9)
    told = measured(synthetic, AdditiveSearch(synthetic.problem, probe_levels=2, plans=10))
    assert sum(np.count_nonzero(e.candidate.levels) == 1 for e in told) == 10
    assert synthetic.problem.space.smallest in [e.candidate for e in told]


def test_options_and_problems_it_cannot_use_are_errors():
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match="expected plans to be a whole number of at least 1, got 0"):
        AdditiveSearch(problem, plans=0)
    with pytest.raises(ConfigError, match="expected probe_levels to be a whole number of at least 1, got 0"):
        AdditiveSearch(problem, probe_levels=0)
    with pytest.raises(ConfigError, match="expected an objective besides the costs"):
        AdditiveSearch(replace(problem, objectives=(Objective("macs", "min"),), distortion=None))


@pytest.mark.parametrize("budget", [None, 0.5])
def test_refined_plans_are_better_where_damages_do_not_add_up(budget):
    synthetic = synthetic_problem(units=8, levels=8, interaction=4.0, budget=budget)
    plain = measured(synthetic, AdditiveSearch(synthetic.problem, plans=8))
    told = measured(synthetic, AdditiveSearch(synthetic.problem, plans=8, refined=2))
    assert told[: len(plain)] == plain
    fronts = [Front.of(some, synthetic.problem.objectives, {}) for some in (plain, told)]
    reference = (0.0, synthetic.problem.costs.dense()["macs"])
    assert fronts[1].hypervolume(reference) > fronts[0].hypervolume(reference)


def test_with_a_bound_the_first_refinement_is_at_the_bound():
    synthetic = synthetic_problem(units=6, levels=8, interaction=4.0, budget=0.5)
    plain = measured(synthetic, AdditiveSearch(synthetic.problem, plans=4))
    told = measured(synthetic, AdditiveSearch(synthetic.problem, plans=4, refined=1))
    best = min(plain, key=lambda e: e.values["kl"]).candidate.levels
    changed = [sum(a != b for a, b in zip(e.candidate.levels, best, strict=True)) for e in told[len(plain) :]]
    assert changed[:4] == [1] * 4
