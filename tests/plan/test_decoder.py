"""Sensitivities to plans: the published prior, budgets that hold, and what happens at the ends."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.decoder import decode, prior
from autoprune.testing import synthetic_problem


def test_the_prior_of_42_levels_has_the_published_values():
    assert prior(42)[[0, 10, 20, 41]] == pytest.approx([0, 0.0594884, 0.2379536, 1], abs=5e-8)


def test_a_single_level_does_no_damage():
    assert prior(1).tolist() == [0]


@pytest.mark.parametrize("coupled", [False, True])
def test_every_sensitivity_gives_a_network_within_the_budget(coupled):
    problem = synthetic_problem(units=6, levels=5, coupled=coupled).problem
    rng = np.random.default_rng(0)
    least, dense = problem.reach()["macs"]
    for _ in range(20):
        budget = rng.uniform(least, dense)
        levels = decode(problem, rng.random(6), budget)
        assert problem.cost_values(np.array([levels]))["macs"][0] <= budget


def test_the_units_said_to_be_sensitive_keep_more():
    problem = synthetic_problem(units=4, levels=6, seed=1).problem
    budget = 0.5 * problem.costs.dense()["macs"]
    for unit in range(4):
        spared = decode(problem, [1.0 if u == unit else 0.1 for u in range(4)], budget)
        given_up = decode(problem, [0.0 if u == unit else 1.0 for u in range(4)], budget)
        assert spared[unit] < given_up[unit]


def test_another_cost_can_be_named():
    problem = synthetic_problem(units=4, levels=6, objectives=3).problem
    budget = 0.4 * problem.costs.dense()["params"]
    levels = decode(problem, np.full(4, 0.5), budget, cost="params")
    assert 0.3 * budget < problem.cost_values(np.array([levels]))["params"][0] <= budget


def test_a_budget_out_of_reach_raises_with_the_least_cost():
    problem = synthetic_problem(units=3, levels=4).problem
    least = problem.reach()["macs"][0]
    with pytest.raises(InfeasibleBudget, match=f"least reachable cost is {least:g}"):
        decode(problem, [0.5] * 3, least - 1)


@pytest.mark.parametrize("wrong", [[0.5, 0.5], [0.5, 0.5, 1.1], [0.5, -0.1, 0.5], [0.5, float("nan"), 0.5]])
def test_sensitivities_that_are_not_one_share_per_unit_are_errors(wrong):
    with pytest.raises(ConfigError, match="expected 3 sensitivities from 0 to 1, got"):
        decode(synthetic_problem(units=3, levels=4).problem, wrong, 1e9)
