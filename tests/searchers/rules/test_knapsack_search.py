"""Knapsacks over importance: what levels are charged, by hand, and plans against all networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem, Profile
from autoprune.core.space import SearchSpace
from autoprune.errors import ConfigError
from autoprune.searchers.rules.knapsack import KnapsackSearch, removed_importance
from autoprune.testing import synthetic_problem


def problem(profiles, *, bounds=()):
    """Two units of four positions, the second at twice the price."""
    space = SearchSpace(("a", "b"), ((4, 3, 1), (4, 2)))
    costs = CostModel({"a": 4, "b": 4}, {"macs": Polynomial({("a",): 1, ("b",): 2})})
    objectives = (Objective("accuracy", "max"), Objective("macs", "min"))
    return Problem(space, objectives, costs, bounds, None, profiles)


def profile(values, fluctuation=None):
    return Profile(np.array(values), (len(values), 1), None if fluctuation is None else np.array(fluctuation))


NORMS = {"a": profile([4.0, 1.0, 3.0, 2.0]), "b": profile([5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 1.0, 2.0])}


def test_a_level_is_charged_the_least_important_positions():
    assert removed_importance(problem(NORMS), "magnitude", False).tolist() == [[0, 1, 6], [0, 10, np.inf]]


def test_relative_charges_what_goes_over_what_stays():
    table = removed_importance(problem(NORMS), "magnitude", True)
    assert table.tolist() == [[0, 1 / 9, 6 / 4], [0, 10 / 10, np.inf]]


def test_fluctuation_weighs_positions_and_units_without_it_stay():
    table = removed_importance(problem(NORMS), "fluctuation", False)
    assert table.tolist() == [[0, np.inf, np.inf], [0, 0, np.inf]]  # of b, 0 and 0 go and 5 and 10 stay


def test_a_unit_worth_nothing_goes_for_nothing():
    nothing = {"a": profile([0.0] * 4), "b": NORMS["b"]}
    for relative in (False, True):
        assert removed_importance(problem(nothing), "magnitude", relative)[0].tolist() == [0, 0, 0]


def test_a_count_of_a_pattern_is_a_share_of_all_positions():
    eight = {"a": profile([1.0] * 8), "b": NORMS["b"]}  # two groups of four: keeping 3 of 4 removes 2 of 8
    assert removed_importance(problem(eight), "magnitude", False)[0].tolist() == [0, 2, 6]


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("relative", [False, True])
def test_plans_keep_the_most_importance_of_all_networks_within_each_budget(coupled, relative):
    base = synthetic_problem(units=5, levels=4, coupled=coupled).problem
    rng = np.random.default_rng(0)
    profiles = {
        unit: profile(rng.lognormal(size=counts[0]))
        for unit, counts in zip(base.space.units, base.space.levels, strict=True)
    }
    full = replace(base, profiles=profiles)
    rows = np.stack(np.unravel_index(np.arange(base.space.count), base.space.sizes), axis=1)
    costs = base.cost_values(rows)["macs"]
    damage = removed_importance(full, "magnitude", relative)[np.arange(5), rows].sum(axis=1)
    found = [candidate.levels for candidate in KnapsackSearch(full, plans=6, relative=relative).ask(100)]
    assert found[0] == base.space.dense.levels
    own = {tuple(row): value for row, value in zip(rows.tolist(), damage.tolist(), strict=True)}
    for budget in np.linspace(costs.min(), costs.max(), 6):
        within = min(own[levels] for levels in found if base.cost_values(np.array([levels]))["macs"][0] <= budget)
        assert within == pytest.approx(damage[costs <= budget].min())


def test_a_users_latency_is_planned_on():
    base = problem(NORMS)
    slow_b = replace(base, costs=base.costs.with_cost("ms", lambda kept: 1.0 + kept["a"] // 2 + 10 * kept["b"]))
    levels = [candidate.levels for candidate in KnapsackSearch(slow_b, cost="ms", plans=5, relative=False).ask(9)]
    assert levels[0] == (0, 0)
    assert levels[-1] == (2, 1)
    assert (0, 1) in levels  # half of b saves 20 ms, and then there is no need to touch a


def test_branches_stay_where_bounds_leave_room_for_them():
    base = synthetic_problem(units=3, levels=4, branches=2).problem
    named = {unit: profile([1.0] * 16) for unit in base.space.units if unit.startswith("unit")}
    wide = replace(base, profiles=named)
    found = [candidate.levels for candidate in KnapsackSearch(wide).ask(100)]
    assert found[-1] == base.space.smallest.levels  # for the budgets below
    assert {levels[3:] for levels in found[:-1]} == {(0, 0)}
    least = float(base.reach()["macs"][0])
    tight = replace(wide, bounds=(Bound("macs", "<=", least),))
    # without its branch a unit costs nothing, so it stays whole
    assert [candidate.levels for candidate in KnapsackSearch(tight).ask(100)] == [(0, 0, 3, 1, 1)]


def test_what_cannot_be_weighed_is_an_error():
    with pytest.raises(
        ConfigError, match="expected the statistics of 'fluctuation' in the profile of at least one unit, got none"
    ):
        KnapsackSearch(problem({"a": NORMS["a"]}), importance="fluctuation")
    with pytest.raises(ConfigError, match=r"expected importance to be one of \['magnitude', 'fluctuation'\], got 'l1'"):
        KnapsackSearch(problem(NORMS), importance="l1")
    with pytest.raises(ConfigError, match=r"expected cost to be one of \['macs'\], got 'ms'"):
        KnapsackSearch(problem(NORMS), cost="ms")
