"""Refined plans against the best of all networks, and what is proposed on the way."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.plan.allocation import plan
from autoprune.plan.damages import damage_table, probes
from autoprune.searchers.fronts.refinement import Refinement
from autoprune.testing import synthetic_problem


def table_of(synthetic):
    return damage_table(synthetic.problem, [synthetic.evaluate(Candidate(p)) for p in probes(synthetic.problem)])


def refined(synthetic, share, **options):
    """The first plan's KL, the best one's after refinement, the budget, and everything asked."""
    problem, table = synthetic.problem, table_of(synthetic)
    budget = share * problem.costs.dense()["macs"]
    first = synthetic.evaluate(Candidate(plan(problem, table, "macs", budget)))
    refinement = Refinement(problem, table, "macs", budget, **options)
    refinement.tell([first])
    asked = []
    while step := refinement.ask(100):
        asked += step
        refinement.tell([synthetic.evaluate(candidate) for candidate in step])
    return first.values["kl"], synthetic.evaluate(Candidate(refinement.best)).values["kl"], budget, asked


def optimum(synthetic, budget):
    rows = np.stack(np.meshgrid(*[np.arange(size) for size in synthetic.problem.space.sizes]), -1)
    rows = rows.reshape(-1, len(synthetic.problem.space.sizes))
    return min(synthetic.kl(row) for row in rows[synthetic.problem.cost_values(rows)["macs"] <= budget])


def test_where_damages_add_up_the_plan_stays():
    before, after, budget, _ = refined(synthetic_problem(units=5, levels=4, interaction=0.0), 0.5)
    assert before == after == pytest.approx(optimum(synthetic_problem(units=5, levels=4, interaction=0.0), budget))


def test_where_they_do_not_most_of_the_distance_to_the_best_network_is_made_up_for():
    """Twenty problems of six units with strong interactions, each searched to the last of its 4,096 networks."""
    lost, left = [], []
    for seed in range(20):
        synthetic = synthetic_problem(units=6, levels=4, interaction=3.0, seed=seed)
        before, after, budget, _ = refined(synthetic, 0.4)
        best = optimum(synthetic, budget)
        assert best - 1e-12 <= after <= before
        lost.append(before - best)
        left.append(after - best)
    assert sum(lost) > 0
    assert sum(left) < 0.5 * sum(lost)


def test_no_network_comes_twice_and_plans_are_within_the_budget():
    synthetic = synthetic_problem(units=6, levels=6, interaction=3.0, coupled=True)
    _, _, budget, asked = refined(synthetic, 0.5, rounds=4)
    assert asked
    assert len({c.levels for c in asked}) == len(asked)
    last = synthetic.problem.cost_values(np.array([asked[-1].levels]))["macs"][0]
    assert 0.9 * budget < last <= budget


def test_without_a_network_within_the_budget_nothing_is_proposed():
    synthetic = synthetic_problem(units=3, levels=3)
    refinement = Refinement(
        synthetic.problem, table_of(synthetic), "macs", 0.5 * synthetic.problem.costs.dense()["macs"]
    )
    refinement.tell([synthetic.evaluate(synthetic.problem.space.dense)])
    assert refinement.ask(5) == []
    assert refinement.best is None


def test_failed_probes_and_plans_end_it_where_it_began():
    synthetic = synthetic_problem(units=4, levels=4, interaction=3.0)
    budget = 0.5 * synthetic.problem.costs.dense()["macs"]
    start = synthetic.evaluate(synthetic.problem.space.smallest)
    refinement = Refinement(synthetic.problem, table_of(synthetic), "macs", budget)
    refinement.tell([start])
    for _ in range(20):
        failed = [Evaluation(c, status="failed", cause="a test") for c in refinement.ask(100)]
        refinement.tell(failed)
    assert refinement.ask(1) == []
    assert refinement.best == start.candidate.levels


def test_it_waits_for_answers():
    synthetic = synthetic_problem(units=4, levels=4)
    refinement = Refinement(synthetic.problem, table_of(synthetic), "macs", synthetic.problem.costs.dense()["macs"])
    refinement.tell([synthetic.evaluate(Candidate((1, 1, 1, 1)))])
    assert len(refinement.ask(100)) == 4
    assert refinement.ask(1) == []


def test_rounds_are_at_least_one():
    synthetic = synthetic_problem(units=2, levels=2)
    with pytest.raises(ConfigError, match="expected rounds to be a whole number of at least 1, got 0"):
        Refinement(synthetic.problem, table_of(synthetic), "macs", 1.0, rounds=0)


def test_a_unit_whose_level_at_the_base_the_table_does_not_know_stays_there():
    synthetic = synthetic_problem(units=4, levels=4)
    table = table_of(synthetic)
    table[1, 3] = np.inf  # its probe failed
    start = synthetic.problem.space.smallest
    least = synthetic.problem.reach()["macs"][0]
    refinement = Refinement(synthetic.problem, table, "macs", 2 * least)
    refinement.tell([synthetic.evaluate(start)])
    refinement.tell([Evaluation(c, status="failed", cause="a test") for c in refinement.ask(100)])
    assert [candidate.levels[1] for candidate in refinement.ask(100)] == [3]
