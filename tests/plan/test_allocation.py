from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from allocation_instances import K1_FRONT

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.objective import Bound
from autoprune.core.problem import Problem
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.allocation import Allocator, plan
from autoprune.plan.greedy import total_damage
from autoprune.testing import synthetic_problem


def cost_of(problem: Problem, levels, name: str) -> float:
    return float(problem.cost_values(np.array([levels]))[name][0])


def brute_force(problem: Problem, errors: np.ndarray, name: str, budget: float) -> float:
    """The least total damage of any network within the budget and the bounds."""
    rows = np.array(list(itertools.product(*(range(size) for size in problem.space.sizes))))
    rows = rows[problem.feasible(rows) & (problem.cost_values(rows)[name] <= budget)]
    return float(errors[np.arange(rows.shape[1]), rows].sum(axis=1).min())


@pytest.mark.parametrize(
    ("budget", "error", "widths", "macs"),
    [
        (51_900, 0.1875, (6, 8, 4, 8), 47_312),
        (34_600, 0.5, (4, 8, 4, 6), 33_468),
        (17_300, 0.96875, (2, 8, 2, 6), 16_764),
    ],
)
def test_the_coupled_chain_is_planned_exactly(chain, budget, error, widths, macs):
    levels = plan(chain.problem, chain.errors, "macs", budget)
    assert tuple(chain.problem.space.kept(levels)) == widths
    assert cost_of(chain.problem, levels, "macs") == macs
    assert total_damage(chain.errors, levels) == error


@pytest.mark.parametrize(("budget", "optimum"), [(51_900, 0.1875), (34_600, 0.5), (17_300, 0.96875)])
def test_a_chain_behind_a_users_function_is_planned_within_the_budget_and_near_the_optimum(
    opaque_chain, budget, optimum
):
    allocator = Allocator(opaque_chain.problem, opaque_chain.errors, "macs")
    found = allocator.allocate(budget)
    assert cost_of(opaque_chain.problem, found.levels, "macs") == found.cost <= budget
    assert found.bound <= optimum <= found.damage <= 1.1 * optimum
    assert not found.exact


def test_a_users_function_without_couplings_is_planned_as_k1s_front(k1):
    allocator = Allocator(k1.problem, k1.errors, "cost")
    found = [total_damage(k1.errors, np.array(allocator.plan(cost))) for cost, _ in K1_FRONT]
    assert found == pytest.approx([error for _, error in K1_FRONT])


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_plans_equal_brute_force_where_they_are_said_to_be_exact(coupled, seed):
    problem = synthetic_problem(units=4, levels=4, seed=seed, coupled=coupled).problem
    errors = np.sort(np.random.default_rng(seed).random((4, 4)), axis=1)
    allocator = Allocator(problem, errors, "macs")
    for budget in np.linspace(allocator.least, problem.costs.dense()["macs"], 9):
        found = allocator.allocate(budget)
        assert cost_of(problem, found.levels, "macs") == found.cost <= budget
        assert total_damage(errors, np.array(found.levels)) == found.damage
        assert found.damage == pytest.approx(brute_force(problem, errors, "macs", budget))
        assert found.exact
        assert (found.gap, str(found)) == (0, "exact")


@pytest.mark.parametrize("seed", range(4))
def test_plans_with_branches_that_take_others_along_equal_brute_force(seed):
    problem = synthetic_problem(units=3, levels=4, seed=seed, branches=2).problem
    errors = np.sort(np.random.default_rng(seed).random((5, 4)), axis=1)
    errors[3:, 2:] = np.inf
    allocator = Allocator(problem, errors, "macs")
    assert allocator.least == cost_of(problem, problem.space.smallest.levels, "macs")
    for budget in np.linspace(allocator.least, problem.costs.dense()["macs"], 9):
        found = allocator.allocate(budget)
        assert cost_of(problem, found.levels, "macs") == found.cost <= budget
        assert total_damage(errors, np.array(found.levels)) == found.damage
        assert found.damage == pytest.approx(brute_force(problem, errors, "macs", budget))
        assert found.exact
        assert (found.gap, str(found)) == (0, "exact")


@pytest.mark.parametrize("seed", range(4))
def test_a_long_coupled_chain_is_planned_close_below_every_budget(seed):
    """20 units of 8 levels: a plan leaves less than one in a hundred unused and is proved near the best."""
    problem = synthetic_problem(units=20, levels=8, seed=seed, coupled=True).problem
    errors = np.sort(np.random.default_rng(seed).random((20, 8)), axis=1)
    allocator = Allocator(problem, errors, "macs")
    for share in (0.2, 0.5, 0.8):
        budget = share * problem.costs.dense()["macs"]
        found = allocator.allocate(budget)
        assert 0.99 * budget < found.cost <= budget
        assert found.gap <= 0.01 * found.damage


def linearised(monkeypatch, problem, errors):
    """An allocator that is not allowed to eliminate."""
    with monkeypatch.context() as patch:
        patch.setattr("autoprune.plan.exact.solver.TRANSITIONS", 1)
        return Allocator(problem, errors, "macs")


def test_linearised_plans_come_near_brute_force_on_small_coupled_chains(monkeypatch):
    """Mean excess over the optimum of 5 chains at 5 budgets each; greedy descent alone leaves some 8 %."""
    excess = []
    for seed in range(5):
        problem = synthetic_problem(units=5, levels=4, seed=seed, coupled=True).problem
        errors = np.sort(np.random.default_rng(seed).random((5, 4)), axis=1)
        allocator = linearised(monkeypatch, problem, errors)
        for share in (0.2, 0.35, 0.5, 0.65, 0.8):
            budget = share * problem.costs.dense()["macs"]
            best = brute_force(problem, errors, "macs", budget)
            found = allocator.allocate(budget)
            assert str(found).startswith("linearised; damage at most")
            assert found.bound <= best + 1e-9
            excess.append(found.damage / best - 1)
    assert min(excess) >= -1e-9
    assert np.mean(excess) < 0.02


@pytest.mark.parametrize("seed", range(6))
def test_the_bound_on_units_that_are_all_coupled_is_below_brute_force_and_above_nothing_known(monkeypatch, seed):
    names = [f"unit{u}" for u in range(5)]
    rng = np.random.default_rng(seed)
    pairs = itertools.combinations(names, 2)
    macs = sum(
        (Polynomial.constant(int(rng.integers(1, 20))) * Polynomial.of(a) * Polynomial.of(b) for a, b in pairs),
        Polynomial.constant(7),
    )
    problem = synthetic_problem(units=5, levels=4).problem
    problem = replace(problem, costs=CostModel(problem.costs.widths, {"macs": macs}))
    errors = np.sort(rng.random((5, 4)), axis=1)
    allocator = linearised(monkeypatch, problem, errors)
    for share in (0.15, 0.3, 0.5, 0.7):
        budget = share * problem.costs.dense()["macs"]
        found = allocator.allocate(budget)
        best = brute_force(problem, errors, "macs", budget)
        assert errors.min(axis=1).sum() < found.bound <= best + 1e-9
        assert best - 1e-9 <= found.damage
        assert found.cost <= budget


def test_levels_that_are_not_allowed_are_never_planned(chain):
    errors = chain.errors.copy()
    errors[1, 0] = errors[0, 2] = np.inf
    for budget in (20_000, 34_600, 69_200):
        levels = plan(chain.problem, errors, "macs", budget)
        assert np.isfinite(total_damage(errors, np.array(levels)))
        assert cost_of(chain.problem, levels, "macs") <= budget


def test_plans_keep_bounds_on_other_costs():
    problem = synthetic_problem(units=6, objectives=3).problem
    limit = 0.5 * problem.costs.dense()["params"]
    bounded = replace(problem, bounds=(Bound("params", "<=", limit),))
    errors = np.sort(np.random.default_rng(0).random((6, 6)), axis=1)
    budget = 0.7 * problem.costs.dense()["macs"]
    free = plan(problem, errors, "macs", budget)
    assert cost_of(problem, free, "params") > limit
    levels = plan(bounded, errors, "macs", budget)
    assert cost_of(problem, levels, "params") <= limit
    assert cost_of(problem, levels, "macs") <= budget


@pytest.mark.parametrize("name", ["chain", "opaque_chain"])
def test_an_impossible_budget_names_the_least_reachable_cost(request, name):
    instance = request.getfixturevalue(name)
    least = instance.problem.reach()["macs"][0]
    assert Allocator(instance.problem, instance.errors, "macs").least == least
    with pytest.raises(InfeasibleBudget, match=f"least reachable cost is {least:g}"):
        plan(instance.problem, instance.errors, "macs", least - 1)


def test_an_unknown_cost_and_a_unit_without_a_level_are_errors(chain):
    with pytest.raises(ConfigError, match=r"expected a budget on one of the costs \['macs'\], got 'params'"):
        plan(chain.problem, chain.errors, "params", 1.0)
    errors = chain.errors.copy()
    errors[2] = np.inf
    with pytest.raises(ConfigError, match=r"got none for \['w3'\]"):
        plan(chain.problem, errors, "macs", 69_200)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_sketches_are_within_the_budget_and_nearly_as_good_as_plans(coupled, seed):
    problem = synthetic_problem(units=20, levels=6, seed=seed, coupled=coupled).problem
    errors = np.random.default_rng(seed).lognormal(size=20)[:, None] * np.linspace(0, 1, 6) ** 2
    allocator = Allocator(problem, errors, "macs")
    total = 0.0, 0.0
    for budget in np.linspace(allocator.least, problem.costs.dense()["macs"], 7)[:-1]:
        sketch, best = allocator.sketch(budget), allocator.plan(budget)
        assert cost_of(problem, sketch, "macs") <= budget
        total = tuple(t + total_damage(errors, np.array(p)) for t, p in zip(total, (sketch, best), strict=True))
    assert total[1] <= total[0] <= 1.05 * total[1]


def test_sketches_keep_all_bounds_and_say_what_cannot_be_reached():
    problem = synthetic_problem(units=6, levels=4, objectives=3).problem
    limit = Bound("params", "<=", 0.5 * problem.costs.dense()["params"])
    errors = np.sort(np.random.default_rng(0).random((6, 4)), axis=1)
    allocator = Allocator(replace(problem, bounds=(limit,)), errors, "macs")
    sketch = allocator.sketch(0.9 * problem.costs.dense()["macs"])
    assert cost_of(problem, sketch, "params") <= limit.value
    with pytest.raises(InfeasibleBudget, match="the least reachable cost is"):
        allocator.sketch(1.0)


def test_sketches_of_a_users_function_and_of_the_largest_damage_are_within_the_budget(opaque_chain):
    for total in ("sum", "max"):
        allocator = Allocator(opaque_chain.problem, opaque_chain.errors, "macs", total=total)
        assert cost_of(opaque_chain.problem, allocator.sketch(34_600), "macs") <= 34_600


def test_plans_and_sketches_for_expected_budgets_are_those_one_by_one():
    problem = synthetic_problem(units=12, levels=6, seed=4, coupled=True).problem
    errors = np.sort(np.random.default_rng(0).random((12, 6)), axis=1)
    budgets = [0.0, *(np.linspace(0.2, 1.0, 8) * problem.costs.dense()["macs"]).tolist()]
    shared = Allocator(problem, errors, "macs")
    shared.expect(budgets)  # none is within the first, which only its own plan says
    with pytest.raises(InfeasibleBudget, match="the least reachable cost is"):
        shared.plan(budgets[0])
    for budget in budgets[1:]:
        alone = Allocator(problem, errors, "macs")
        assert (shared.plan(budget), shared.sketch(budget)) == (alone.plan(budget), alone.sketch(budget))


def test_plans_do_not_depend_on_the_budgets_planned_before():
    problem = synthetic_problem(units=12, levels=6, seed=4, coupled=True).problem
    errors = np.sort(np.random.default_rng(0).random((12, 6)), axis=1)
    budgets = np.linspace(0.2, 0.9, 8) * problem.costs.dense()["macs"]
    shared = Allocator(problem, errors, "macs")
    for budget in budgets:
        shared.sketch(budget)
    for budget in budgets[::-1]:
        alone = Allocator(problem, errors, "macs").allocate(budget)
        assert shared.allocate(budget).damage == pytest.approx(alone.damage)
        assert shared.allocate(budget).bound == pytest.approx(alone.bound)
