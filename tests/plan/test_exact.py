"""Elimination, its front and its bounds against brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from autoprune.errors import InfeasibleBudget
from autoprune.plan.exact import lagrange
from autoprune.plan.exact import solver as solver_module
from autoprune.plan.exact.elimination import eliminate
from autoprune.plan.exact.front import rounding_for
from autoprune.plan.exact.lagrange import Core, Hull, cheapest, improved
from autoprune.plan.exact.relaxed import relaxed
from autoprune.plan.exact.solver import Solver, relaxed_bound
from autoprune.plan.exact.terms import Terms, separable

SHAPES = {
    "chain": [(u, u + 1) for u in range(5)],
    "star": [(0, u) for u in range(1, 6)],
    "tree": [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)],
    "two parts": [(0, 1), (1, 2), (4, 5)],
    "cycle": [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)],
    "triples": [(0, 1, 2), (2, 3, 4), (4, 5)],
}


def instance(shape: str, seed: int, *, whole: bool = True) -> tuple[Terms, list[np.ndarray]]:
    """Six units of two to four options with a table for each and for each scope; errors in quarters, so ties occur."""
    rng = np.random.default_rng(seed)
    sizes = tuple(rng.integers(2, 5, 6).tolist())
    scopes = [*((u,) for u in range(6)), *SHAPES[shape]]
    draw = rng.integers if whole else rng.uniform
    tables = {scope: np.asarray(draw(0, 30, [sizes[u] for u in scope]), float) for scope in scopes}
    return Terms(sizes, tables, 100.0), [rng.integers(0, 30, size) / 4 for size in sizes]


def all_plans(terms: Terms, errors: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(n,) costs and errors of every choice, each table looked up choice by choice."""
    costs, totals = [], []
    for choice in itertools.product(*(range(size) for size in terms.sizes)):
        looked_up = (table[tuple(choice[u] for u in scope)] for scope, table in terms.tables.items())
        costs.append(terms.constant + sum(looked_up))
        totals.append(sum(error[k] for error, k in zip(errors, choice, strict=True)))
    return np.array(costs), np.array(totals)


def budgets(costs: np.ndarray) -> np.ndarray:
    return np.linspace(costs.min() * (1 + 1e-9), costs.max(), 25)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_front_equals_brute_force_at_every_budget(shape, seed):
    terms, errors = instance(shape, seed)
    costs, totals = all_plans(terms, errors)
    front = Solver.of(terms, errors).frontier
    assert front.exact
    for budget in np.unique(costs):
        plan = front.within(budget)
        best = totals[costs <= budget].min()
        assert (plan.cost, plan.damage) == (costs[(totals == best) & (costs <= budget)].min(), best)
        assert terms.cost(np.array([plan.choice]))[0] == plan.cost


@pytest.mark.parametrize("shape", ["chain", "tree", "triples"])
@pytest.mark.parametrize("seed", range(5))
def test_a_rounded_front_of_real_costs_keeps_every_budget_and_refined_plans_are_optimal(shape, seed):
    terms, errors = instance(shape, seed, whole=False)
    costs, totals = all_plans(terms, errors)
    solver = Solver.of(terms, errors, resolution=terms.reach / 20)
    assert solver.least == pytest.approx(costs.min())
    for budget in budgets(costs):
        assert solver.frontier.within(budget).cost <= budget
        found = solver.solve(budget)
        assert terms.cost(np.array([found.plan.choice]))[0] <= budget * (1 + 1e-12)
        assert found.exact
        assert found.plan.damage == found.bound == totals[costs <= budget].min()


@pytest.mark.parametrize("seed", range(5))
def test_where_too_many_plans_are_left_the_optimum_lies_between_bound_and_plan(seed, monkeypatch):
    monkeypatch.setattr(solver_module, "LONGEST", 1)
    terms, errors = instance("chain", seed, whole=False)
    costs, totals = all_plans(terms, errors)
    solver = Solver.of(terms, errors, resolution=terms.reach / 15)
    for budget in budgets(costs):
        found, best = solver.solve(budget), totals[costs <= budget].min()
        assert found.plan.cost <= budget
        assert found.bound <= best + 1e-9
        assert best <= found.plan.damage + 1e-9
        assert found.method == ("exact" if found.exact else "exact to 6.7 % of the range of costs")
        assert not found.exact or found.plan.damage == pytest.approx(best)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_the_lagrangian_bound_is_the_convex_hull_of_all_plans(shape, seed):
    """The hull at a budget is the least of all lines between a plan within and a plan above it."""
    terms, errors = instance(shape, seed, whole=False)
    costs, totals = all_plans(terms, errors)
    elimination = eliminate(terms, errors, 10**6)
    for budget in budgets(costs)[1:-1]:
        within, above = costs <= budget, costs > budget
        share = (budget - costs[within])[:, None] / (costs[above] - costs[within][:, None])
        lines = totals[within][:, None] + share * (totals[above] - totals[within][:, None])
        hull = min(lines.min(), totals[within].min())
        assert Hull(elimination).at(budget).least == pytest.approx(hull)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("together", [1, lagrange.TOGETHER])
def test_plans_for_several_multipliers_are_the_best_of_all_plans(shape, together, monkeypatch):
    monkeypatch.setattr(lagrange, "TOGETHER", together)
    terms, errors = instance(shape, 2)
    costs, totals = all_plans(terms, errors)
    multipliers = [0.0, 0.01, 0.1, 1.0, np.inf]
    widest, *between, narrowest = cheapest(eliminate(terms, errors, 10**6), multipliers)
    assert (widest.damage, widest.cost) == min(zip(totals, costs, strict=True))
    assert (narrowest.cost, narrowest.damage) == min(zip(costs, totals, strict=True))
    for multiplier, plan in zip(multipliers[1:-1], between, strict=True):
        assert plan.damage + multiplier * plan.cost == pytest.approx((totals + multiplier * costs).min())
        own = terms.cost(np.array([plan.choice]))[0], sum(e[k] for e, k in zip(errors, plan.choice, strict=True))
        assert (plan.cost, plan.damage) == pytest.approx(own)


@pytest.mark.parametrize("few", [0, lagrange.TOGETHER])  # whether slopes are looked at before any budget is
def test_the_hull_is_the_same_for_budgets_together_and_one_by_one(few, monkeypatch):
    monkeypatch.setattr(lagrange, "TOGETHER", few)
    terms, errors = instance("tree", 3, whole=False)
    elimination = eliminate(terms, errors, 10**6)
    wanted = budgets(all_plans(terms, errors)[0]).tolist()
    shared = Hull(elimination)
    shared.narrow(wanted)
    for budget in wanted:
        assert shared.at(budget).least == pytest.approx(Hull(elimination).at(budget).least)
        assert shared.at(budget).plan.cost <= budget


def test_a_hull_of_plans_of_one_cost_is_one_plan():
    elimination = eliminate(separable([np.zeros(2), np.zeros(3)]), [np.array([2.0, 1.0]), np.arange(3.0)], 100)
    assert Hull(elimination).at(0.0).plan == Hull(elimination).narrowest
    assert Hull(elimination).at(5.0).plan.choice == (1, 0)


@pytest.mark.parametrize("forest", [True, False])
@pytest.mark.parametrize("shape", ["chain", "cycle", "triples"])
def test_relaxed_costs_are_nowhere_above_the_true_ones_and_pairs_equal_at_the_reference(shape, forest):
    terms, errors = instance(shape, 3, whole=False)
    reference = [size // 2 for size in terms.sizes]
    lower = relaxed(terms, reference, forest=forest)
    true, below = all_plans(terms, errors)[0], all_plans(lower, errors)[0]
    assert (below <= true + 1e-9).all()
    if shape != "triples":
        assert lower.cost(np.array([reference]))[0] == pytest.approx(terms.cost(np.array([reference]))[0])
    assert max(len(scope) for scope in lower.tables) == (2 if forest else 1)


@pytest.mark.parametrize("shape", ["cycle", "triples", "tree"])
@pytest.mark.parametrize("seed", range(5))
def test_the_relaxed_bound_is_below_brute_force(shape, seed):
    terms, errors = instance(shape, seed, whole=False)
    costs, totals = all_plans(terms, errors)
    choices = list(itertools.product(*(range(size) for size in terms.sizes)))
    for budget in budgets(costs):
        best = totals[costs <= budget].min()
        plan = choices[int(np.flatnonzero((totals == best) & (costs <= budget))[0])]
        assert relaxed_bound(terms, errors, plan, budget) <= best + 1e-9


def test_nothing_is_found_below_the_least_error():
    terms, errors = instance("chain", 0)
    solver = Solver.of(terms, errors)
    plan = solver.frontier.within(250.0)
    assert plan.damage > solver.frontier[-1].damage
    core = Core.of(solver.elimination, 250.0, Hull(solver.elimination).at(250.0).multiplier)
    assert improved(solver.elimination, solver.rounding, core, plan.damage) == (None, True)
    found, proved = improved(solver.elimination, solver.rounding, core, plan.damage + 0.1)
    assert (found.damage, proved) == (plan.damage, True)


def test_options_without_a_finite_error_are_left_out_of_coupled_costs():
    terms, errors = instance("tree", 1)
    errors[1][0] = np.inf
    errors[4][-1] = np.nan
    costs, totals = all_plans(terms, errors)
    front = Solver.of(terms, errors).frontier
    usable = np.isfinite(totals)
    assert front[0].cost == costs[usable].min()
    assert front[-1].damage == totals[usable].min()
    assert all(np.isfinite(sum(e[k] for e, k in zip(errors, p.choice, strict=True))) for p in front)


def test_a_budget_below_the_least_cost_names_it():
    terms, errors = instance("star", 2)
    solver = Solver.of(terms, errors)
    with pytest.raises(InfeasibleBudget, match=f"the least reachable cost is {solver.least:g}"):
        solver.solve(solver.least - 1)


@pytest.mark.parametrize(
    ("pairs", "transitions"),
    [
        ([], 5 * 3),
        ([(0, 1), (1, 2), (2, 3), (3, 4)], 3 + 4 * 9),  # one open unit beside the one that enters
        ([(0, 4), (1, 4), (2, 4), (3, 4)], 3 + 4 * 9),  # a leaf, the hub, and the other leaves
        ([(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)], 3 + 9 + 27 + 27 + 27),
    ],
)
def test_elimination_looks_at_the_states_that_the_couplings_demand(pairs, transitions):
    terms = Terms((3,) * 5, {pair: np.zeros((3, 3)) for pair in pairs})
    errors = [np.zeros(3)] * 5
    assert eliminate(terms, errors, 1000).transitions == transitions
    assert eliminate(terms, errors, transitions - 1) is None


def test_costs_that_are_whole_multiples_are_not_rounded_and_more_states_than_32768_are():
    """Two units of 300 options each: multiples of 1000 give 599 states; without a common divisor there are too many."""
    grid = np.arange(300.0) * 1000
    terms = separable([grid, grid])
    assert (terms.divisor, terms.reach) == (1000, 598_000)
    errors = [np.zeros(300)] * 2
    exact = rounding_for(eliminate(terms, errors, 10**6), terms, None)
    assert (exact.width, exact.lossless) == (1000, True)
    odd = separable([grid, grid + np.arange(300) ** 2])
    assert odd.divisor == 1
    rounding = rounding_for(eliminate(odd, errors, 10**6), odd, None)
    assert not rounding.lossless
    assert rounding.width == odd.reach / 10_000


def test_a_cost_that_couples_too_much_is_not_eliminated():
    pairs = list(itertools.combinations(range(9), 2))
    terms = Terms((8,) * 9, {pair: np.ones((8, 8)) for pair in pairs})
    assert Solver.of(terms, [np.arange(8.0)] * 9) is None
    assert relaxed_bound(terms, [np.arange(8.0)] * 9, (0,) * 9, 100.0) == 0


def test_one_unit_with_one_option_is_a_front_of_one_plan():
    front = Solver.of(replace(separable([np.array([4.0])]), constant=2.0), [np.array([1.5])]).frontier
    assert [(p.choice, p.cost, p.damage) for p in front] == [((0,), 6.0, 1.5)]
