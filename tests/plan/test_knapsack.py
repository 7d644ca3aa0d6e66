"""The knapsack against brute force, published instances and arithmetic by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from allocation_instances import K1_COSTS, K1_ERRORS, K1_FRONT

from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.knapsack import frontier, solve_knapsack, solver


def random_instance(seed: int, *, whole: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two to five units of one to five options; errors in quarters, so that sums are exact and ties are common."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, size=rng.integers(2, 6))
    costs = [rng.integers(0, 12, size) if whole else rng.random(size) * 10 for size in sizes]
    return costs, [rng.integers(0, 12, size) / 4 for size in sizes]


def all_plans(costs: list[np.ndarray], errors: list[np.ndarray]) -> list[tuple[float, float, tuple[int, ...]]]:
    """(error, cost, choice) of every choice."""
    choices = itertools.product(*(range(len(cost)) for cost in costs))
    sums = [(sum(e[k] for e, k in zip(errors, c)), sum(x[k] for x, k in zip(costs, c)), c) for c in choices]  # noqa: B905
    return [(float(error), float(cost), choice) for error, cost, choice in sums]


@pytest.mark.parametrize(
    ("budget", "error", "choice", "cost"),
    [
        (36, 0, (0, 0, 0, 0), 36),
        (30, 1.3, (1, 0, 1, 0), 30),
        (25, 3.0, (1, 0, 2, 0), 25),
        (20, 5.4, (1, 1, 2, 2), 19),
        (15, 9.5, (2, 2, 2, 2), 14),
        (10, 18.0, (3, 2, 2, 3), 10),
        (6, 28.5, (3, 3, 3, 3), 6),
    ],
)
def test_k1_has_the_published_plan_at_each_budget(budget, error, choice, cost):
    plan = solve_knapsack(K1_COSTS, K1_ERRORS, budget)
    assert (plan.choice, plan.cost) == (choice, cost)
    assert plan.damage == pytest.approx(error)


def test_k1_has_the_published_front_of_22_points():
    found = [(plan.cost, plan.damage) for plan in frontier(K1_COSTS, K1_ERRORS)]
    assert [cost for cost, _ in found] == [cost for cost, _ in K1_FRONT]
    assert [error for _, error in found] == pytest.approx([error for _, error in K1_FRONT])


def test_an_impossible_budget_names_the_least_reachable_cost():
    with pytest.raises(InfeasibleBudget, match="budget 5 cannot be reached: the least reachable cost is 6"):
        solve_knapsack(K1_COSTS, K1_ERRORS, 5)
    with pytest.raises(InfeasibleBudget, match="budget nan"):
        solve_knapsack(K1_COSTS, K1_ERRORS, float("nan"))


@pytest.mark.parametrize("seed", range(40))
def test_every_budget_equals_brute_force_with_ties_by_error_cost_choice(seed):
    costs, errors = random_instance(seed, whole=True)
    plans = all_plans(costs, errors)
    for budget in range(int(min(cost for _, cost, _ in plans)), int(sum(cost.max() for cost in costs)) + 1):
        best = min(plan for plan in plans if plan[1] <= budget)
        found = solve_knapsack(costs, errors, budget)
        assert (found.damage, found.cost, found.choice) == best


@pytest.mark.parametrize("seed", range(20))
def test_real_costs_never_exceed_the_budget_and_miss_less_than_a_bucket_per_unit(seed):
    costs, errors = random_instance(seed, whole=False)
    plans = all_plans(costs, errors)
    bucket = 0.05
    for budget in np.linspace(sum(cost.min() for cost in costs) + 1e-9, sum(cost.max() for cost in costs), 23):
        found = solve_knapsack(costs, errors, budget, resolution=bucket)
        assert sum(cost[k] for cost, k in zip(costs, found.choice, strict=True)) <= budget
        slack = bucket * len(costs)
        reachable = [error for error, cost, _ in plans if cost <= budget - slack]
        assert found.damage <= min(reachable, default=np.inf)


def test_real_costs_reach_the_optimum_at_the_default_resolution():
    for seed in range(20):
        costs, errors = random_instance(seed, whole=False)
        best = {}
        for error, cost, _ in sorted(all_plans(costs, errors)):
            best.setdefault(error, cost)
        found = {plan.damage: plan.cost for plan in frontier(costs, errors)}
        assert all(found[error] >= best[error] - 1e-9 for error in found)
        assert found[min(best)] == pytest.approx(best[min(best)], abs=0.01)


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_for_one_budget_equals_brute_force_whatever_the_resolution(seed):
    costs, errors = random_instance(seed, whole=False)
    plans = all_plans(costs, errors)
    planned = solver(costs, errors, resolution=5.0)
    for budget in sorted(cost for _, cost, _ in plans)[:: max(1, len(plans) // 20)]:
        found = planned.solve(budget)
        assert sum(cost[k] for cost, k in zip(costs, found.plan.choice, strict=True)) <= budget
        assert found.plan.damage == found.bound == min(error for error, cost, _ in plans if cost <= budget)
        assert found.exact


def test_many_options_are_planned_exactly_where_the_front_is_rounded():
    """54 units of 101 options with real costs: the front's plan is within its resolution of the exact one."""
    rng = np.random.default_rng(0)
    share = np.linspace(1, 0, 101)
    costs = [rng.lognormal(0, 1) * share for _ in range(54)]
    errors = [rng.lognormal(0, 1) * (1 - share) ** rng.uniform(1.5, 4) for _ in range(54)]
    planned = solver(costs, errors)
    front = planned.frontier
    assert not front.exact
    for fraction in (0.05, 0.2, 0.7):
        budget = fraction * sum(cost[0] for cost in costs)
        found = planned.solve(budget)
        assert found.exact
        assert found.plan.cost <= budget
        assert front.within(budget).damage * 0.99 <= found.plan.damage <= front.within(budget).damage


def test_error_falls_as_the_budget_grows():
    rng = np.random.default_rng(0)
    plans = frontier(rng.random((30, 8)), rng.random((30, 8)))
    assert len(plans) > 100
    assert all(a.cost < b.cost and a.damage > b.damage for a, b in itertools.pairwise(plans))


def test_every_state_beyond_4096_is_filled():
    """One unit can have any cost from 0 to 9999: states at multiples of 4096 are plans like all others."""
    costs = [np.arange(10_000)]
    plans = frontier(costs, [np.arange(10_000)[::-1] / 1.0])
    assert [plan.cost for plan in plans] == list(range(10_000))
    assert solve_knapsack(costs, [-np.arange(10_000.0)], 4096).choice == (4096,)


def test_finer_buckets_never_do_worse_and_end_at_the_exact_error():
    rng = np.random.default_rng(3)
    costs, errors = rng.integers(1, 50, (6, 5)), rng.integers(0, 40, (6, 5)) / 4
    budget = 0.6 * costs.max(axis=1).sum()
    found = [solve_knapsack(costs, errors, budget, resolution=width).damage for width in (40, 5, 1)]
    assert found[0] >= found[1] >= found[2] == solve_knapsack(costs, errors, budget).damage


def test_an_option_that_costs_nothing_still_adds_its_error():
    plan = solve_knapsack([np.array([0, 0]), np.array([3, 0])], [np.array([2.0, 1.0]), np.array([0.0, 5.0])], 0)
    assert (plan.choice, plan.cost, plan.damage) == ((1, 1), 0, 6.0)


def test_costs_that_are_all_equal_leave_one_plan():
    (plan,) = frontier([np.array([7, 7]), np.array([1])], [np.array([2.0, 2.0]), np.array([0.5])])
    assert (plan.choice, plan.cost, plan.damage) == ((0, 0), 8, 2.5)


def test_one_unit_with_one_option_is_a_plan():
    assert solve_knapsack([np.array([4])], [np.array([1.5])], 4).choice == (0,)


def test_options_without_a_finite_error_are_never_chosen():
    costs = [np.array([5, 3, 1]), np.array([5, 3, 1])]
    errors = [np.array([0.0, np.nan, 2.0]), np.array([np.inf, 1.0, 2.0])]
    assert [plan.choice for plan in frontier(costs, errors)] == [(2, 2), (2, 1), (0, 2), (0, 1)]
    assert solve_knapsack(costs, errors, 100).choice == (0, 1)


def test_a_unit_without_an_allowed_option_is_an_error_that_names_it():
    with pytest.raises(ConfigError, match="unit 1: none of its 2 options has a finite damage"):
        solve_knapsack([np.array([1]), np.array([1, 2])], [np.array([0.0]), np.array([np.nan, np.inf])], 9)


def test_costs_that_are_not_finite_or_not_as_many_as_errors_are_errors():
    with pytest.raises(ConfigError, match=r"unit 0: expected finite costs, got \[nan, 1.0\]"):
        solve_knapsack([np.array([np.nan, 1])], [np.array([0.0, 1.0])], 9)
    with pytest.raises(ConfigError, match="unit 0: expected as many costs as damages"):
        solve_knapsack([np.array([1, 2])], [np.array([0.0])], 9)
    with pytest.raises(ConfigError, match="got 2 and 1 arrays"):
        solve_knapsack([np.array([1]), np.array([1])], [np.array([0.0])], 9)
    with pytest.raises(ConfigError, match="expected a resolution above 0, got -1"):
        solve_knapsack([np.array([1, 2])], [np.array([1.0, 0.0])], 9, resolution=-1)
