"""The searcher of the closed-form rules: which rules it uses, and that its plans keep every bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.problem import Profile
from autoprune.errors import ConfigError
from autoprune.searchers.fronts.auto import AutoSearch
from autoprune.searchers.rules.search import NAMES, ClosedFormSearch, nearest_levels, plans_of
from autoprune.testing import check_searcher, synthetic_problem, trace


def profiled(problem, *, fluctuation=True, outliers=True):
    """The problem with profiles of all its units, which differ from unit to unit."""
    rng = np.random.default_rng(5)
    profiles = {}
    for number, (unit, counts) in enumerate(zip(problem.space.units, problem.space.levels, strict=True)):
        magnitudes, spread = rng.lognormal(0, 1, (2, counts[0]))
        shape, share = (counts[0], 4 * (number + 1), 3, 3), float(rng.random())
        profiles[unit] = Profile(
            magnitudes, shape, spread if fluctuation else None, share if outliers else None, number
        )
    return replace(problem, profiles=profiles)


@pytest.mark.parametrize("rule", NAMES)
def test_every_rule_keeps_the_contract(rule):
    check_searcher(
        lambda problem, seed: ClosedFormSearch(profiled(problem), seed=seed, rules=[rule]),
        evaluations=20,
        seeded=False,
    )


@pytest.mark.parametrize("rule", NAMES)
def test_every_rule_meets_each_budget_closely(rule):
    problem = profiled(synthetic_problem(units=12, levels=16, coupled=True).problem)
    costs = np.array([cost for cost, _ in plans_of(problem, rule, "macs")])
    dense = problem.costs.dense()["macs"]
    assert costs[0] == dense
    for share in (0.7, 0.5, 0.35):
        assert 0.9 * share * dense < costs[costs <= share * dense].max()


def test_rules_are_different_plans_at_one_budget():
    problem = profiled(synthetic_problem(units=12, levels=16).problem)
    budget = 0.5 * problem.costs.dense()["macs"]
    found = {min((p for p in plans_of(problem, rule, "macs") if p[0] <= budget), key=lambda p: -p[0]) for rule in NAMES}
    assert len(found) == len(NAMES)


def test_plans_keep_bounds_and_come_with_dense_first_where_it_is_allowed():
    for budget in (None, 0.4):
        synthetic = synthetic_problem(units=6, levels=6, budget=budget, objectives=3)
        problem = profiled(synthetic.problem)
        found = trace(ClosedFormSearch(problem), problem, lambda _, c, s=synthetic: s.evaluate(c), 1000)
        assert (found[0] == problem.space.dense) == (budget is None)
        assert problem.feasible(np.array([c.levels for c in found])).all()
        assert len(found) > 12


def test_rules_without_their_data_are_left_out_with_the_reason():
    problem = synthetic_problem(units=3, levels=4).problem
    assert list(ClosedFormSearch(problem).left_out) == list(NAMES[1:])
    partly = ClosedFormSearch(profiled(problem, fluctuation=False, outliers=False))
    assert partly.left_out == {
        "flap": "rule 'flap' needs magnitudes and fluctuation of every unit, and the problem's profiles lack them for "
        "3 of 3, 'unit0' first. Leave the rule out, or the units.",
        "owl": "rule 'owl' needs outlier_share of every unit, and the problem's profiles lack them for 3 of 3, 'unit0' "
        "first. Leave the rule out, or the units.",
    }


def test_a_rule_asked_for_by_name_without_its_data_is_an_error():
    problem = profiled(synthetic_problem(units=3, levels=4).problem, outliers=False)
    with pytest.raises(ConfigError, match="rule 'owl' needs outlier_share of every unit"):
        ClosedFormSearch(problem, rules=["lamp", "owl"])
    with pytest.raises(ConfigError, match="rule 'owl' needs outlier_share of every unit"):
        plans_of(problem, "owl", "macs")


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ConfigError, match=r"expected closed-form rules among \['uniform', .*\], got \['lump'\]"):
        ClosedFormSearch(synthetic_problem().problem, rules=["lump"])


def test_shares_become_the_nearest_levels_and_of_equally_near_ones_the_wider():
    problem = synthetic_problem(units=2, levels=4).problem  # shares 1, 3/4, 1/2, 1/4
    shares = np.array([[1.0, 0.9], [0.875, 0.6], [0.0, 0.3]])
    assert nearest_levels(problem, shares).tolist() == [[0, 0], [0, 2], [3, 3]]


def test_auto_measures_closed_form_plans_after_its_ladder_when_told_to():
    synthetic = synthetic_problem(units=6, levels=6)
    problem = profiled(synthetic.problem)
    plain, seeded = (
        trace(AutoSearch(problem, closed_forms=n), problem, lambda _, c: synthetic.evaluate(c), 40) for n in (0, 5)
    )
    wanted = trace(ClosedFormSearch(problem, plans=5), problem, lambda _, c: synthetic.evaluate(c), 1000)
    assert set(wanted) <= set(seeded)
    assert not set(wanted) <= set(plain)
