from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.cost import CostModel
from autoprune.core.objective import Bound
from autoprune.core.problem import cost_range, primary_cost
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.repair import fit_to_budget, repair, stratified
from autoprune.testing import synthetic_problem


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_levels_within_the_bounds_come_back_as_they_are(rng):
    problem = synthetic_problem(budget=0.5).problem
    inside = np.array(problem.space.smallest.levels)
    assert (repair(problem, inside, rng) == inside).all()


def test_repair_only_removes_and_ends_within_the_bounds(rng):
    problem = synthetic_problem(budget=0.3, coupled=True).problem
    for _ in range(50):
        levels = rng.integers(0, 3, len(problem.space.units))
        repaired = repair(problem, levels, rng)
        assert (repaired >= levels).all()
        assert problem.feasible(repaired[None])[0]


def test_repair_stops_at_the_first_point_within_the_bounds(rng):
    """Undoing the last step is outside again: some unit one level up must be."""
    problem = synthetic_problem(budget=0.5).problem
    repaired = repair(problem, np.zeros(8, dtype=int), rng)
    one_up = repaired - np.eye(8, dtype=int)[repaired > 0]
    assert not problem.feasible(one_up).all()


def test_a_budget_below_the_smallest_network_is_an_error_that_names_its_cost(rng):
    problem = synthetic_problem(budget=0.5).problem
    least = problem.reach()["macs"][0]
    impossible = replace(problem, bounds=(Bound("macs", "<=", least - 1),))
    with pytest.raises(InfeasibleBudget, match=f"macs<=.*smallest network of this space has macs = {least:g}"):
        repair(impossible, np.zeros(8, dtype=int), rng)
    with pytest.raises(InfeasibleBudget, match="expected to reach macs <= 1,"):
        fit_to_budget(problem, np.zeros(8, dtype=int), rng, "macs", 1.0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_fit_fills_the_target_until_no_single_step_up_fits(rng, share):
    problem = synthetic_problem(coupled=True).problem
    least, most = problem.reach()["macs"]
    target = least + share * (most - least)
    for _ in range(20):
        levels = fit_to_budget(problem, rng.integers(0, 6, 8), rng, "macs", target)
        one_up = levels - np.eye(8, dtype=int)[levels > 0]
        assert problem.cost_values(levels[None])["macs"][0] <= target
        assert (problem.cost_values(one_up)["macs"] > target).all()


def test_fit_keeps_the_bounds_on_other_costs(rng):
    problem = synthetic_problem(objectives=3).problem
    bound = Bound("params", "<=", 0.4 * problem.costs.dense()["params"])
    problem = replace(problem, bounds=(bound,))
    levels = fit_to_budget(problem, np.zeros(8, dtype=int), rng, "macs", problem.costs.dense()["macs"])
    assert problem.feasible(levels[None])[0]


def test_strata_cover_the_whole_range_where_uniform_draws_do_not(rng):
    problem = synthetic_problem(units=30, levels=10).problem
    least, most = cost_range(problem, "macs")
    drawn = problem.cost_values(np.array(stratified(problem, rng, 40)))["macs"]
    position = np.sort((drawn - least) / (most - least))
    assert position[0] < 0.05
    assert position[-1] > 0.95
    assert np.diff(position).max() < 0.06
    uniform = problem.cost_values(rng.integers(0, 10, (40, 30)))["macs"]
    assert (uniform - least).min() / (most - least) > 0.2


def test_the_range_of_a_cost_ends_at_its_bound():
    problem = synthetic_problem(budget=0.5).problem
    least, most = cost_range(problem, "macs")
    assert most == 0.5 * problem.costs.dense()["macs"]
    assert (least, cost_range(problem, "params")[1]) == (problem.reach()["macs"][0], problem.costs.dense()["params"])


def test_the_first_objective_that_is_a_cost_is_covered_else_the_first_cost():
    problem = synthetic_problem(objectives=3).problem
    assert primary_cost(replace(problem, objectives=problem.objectives[::-1])) == "params"
    assert primary_cost(replace(problem, objectives=problem.objectives[:1])) == "macs"
    with pytest.raises(ConfigError, match="expected a problem with at least one cost"):
        primary_cost(replace(problem, costs=CostModel(problem.costs.widths, {})))
