"""Min-max plans against brute force and a threshold by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.allocation import Allocator
from autoprune.searchers.fronts.additive import AdditiveSearch
from autoprune.testing import synthetic_problem, trace


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_network_within_the_budget_has_a_smaller_largest_damage(seed, coupled):
    problem = synthetic_problem(units=4, levels=4, seed=seed, coupled=coupled).problem
    errors = np.sort(np.random.default_rng(seed).integers(0, 9, (4, 4)) / 4, axis=1)  # with ties
    allocator = Allocator(problem, errors, "macs", total="max")
    rows = np.array(list(itertools.product(range(4), repeat=4)))
    costs, damages = problem.cost_values(rows)["macs"], errors[np.arange(4), rows].max(axis=1)
    assert allocator.least == costs.min()
    for budget in np.unique(costs):
        found = allocator.allocate(float(budget))
        assert found.damage == found.bound == damages[costs <= budget].min()
        assert found.cost <= budget
        assert str(found) == "exact"


def test_every_unit_takes_its_narrowest_level_below_the_threshold(k1):
    """Damages of K1 up to 2.5 allow levels 2, 1, 2, 2 at a cost of 5 + 6 + 4 + 2 = 17; up to 2 only 1, 1, 2, 2."""
    allocator = Allocator(k1.problem, k1.errors, "cost", total="max")
    assert allocator.plan(17) == (2, 1, 2, 2)
    assert allocator.plan(18) == (2, 1, 2, 2)
    assert allocator.plan(19) == (1, 1, 2, 2)
    assert allocator.allocate(19).damage == 2


def test_levels_that_are_not_allowed_are_skipped(k1):
    errors = k1.errors.copy()
    errors[0, 2:] = np.inf
    errors[1, 0] = np.inf
    allocator = Allocator(k1.problem, errors, "cost", total="max")
    assert allocator.least == 7 + 1 + 2 + 1
    assert allocator.plan(100) == (0, 1, 1, 0)  # 0.4 is the least threshold, and the third unit has 0.3 at level 1


def test_a_budget_below_the_narrowest_network_names_its_cost(k1):
    with pytest.raises(InfeasibleBudget, match="budget 5 cannot be reached: the least reachable cost is 6"):
        Allocator(k1.problem, k1.errors, "cost", total="max").plan(5)


def test_another_total_is_an_error(k1):
    with pytest.raises(ConfigError, match=r"one of \['sum', 'max'\], got 'mean'"):
        Allocator(k1.problem, k1.errors, "cost", total="mean")


def test_the_additive_searcher_plans_by_the_largest_damage_when_told_to():
    synthetic = synthetic_problem(units=6, levels=6, seed=2, interaction=0.0)
    found = {}
    for total in ("sum", "max"):
        searcher = AdditiveSearch(synthetic.problem, plans=12, total=total)
        found[total] = trace(searcher, synthetic.problem, lambda _, c: synthetic.evaluate(c), 1000)
    probes = 1 + 6 * 5
    assert found["sum"][:probes] == found["max"][:probes]
    assert set(found["sum"]) != set(found["max"])
    with pytest.raises(ConfigError, match=r"one of \['sum', 'max'\], got 'most'"):
        AdditiveSearch(synthetic.problem, total="most")
