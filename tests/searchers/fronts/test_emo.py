"""Parts searched alone and joined: against all joins, and against all networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.exact.terms import terms_of
from autoprune.plan.joins import Choices, Joiner, coarsened, restricted
from autoprune.searchers.fronts.emo import EmoSearch
from autoprune.testing import synthetic_problem, trace


def everything(sizes):
    return np.stack(np.unravel_index(np.arange(np.prod(sizes)), tuple(sizes)), axis=1)


def answered(searcher, synthetic, evaluations=500, slots=1):
    told = []

    def answer(_, candidate):
        told.append(synthetic.evaluate(candidate))
        return told[-1]

    trace(searcher, synthetic.problem, answer, evaluations, slots=slots)
    return told


def choices(problem, sizes, seed=0):
    """Random choices for parts of two units each, their units mixed up."""
    rng = np.random.default_rng(seed)
    units = rng.permutation(len(problem.space.units)).reshape(len(sizes), 2)
    return [
        Choices(u, rng.integers(0, 4, size=(k, 2)), np.sort(rng.random(k))) for u, k in zip(units, sizes, strict=True)
    ]


def all_joins(problem, parts):
    """(n, u) levels, (n,) macs and (n,) damages of every join."""
    picked = everything([len(part.damages) for part in parts])
    levels = np.zeros((len(picked), len(problem.space.units)), dtype=int)
    for index, part in enumerate(parts):
        levels[:, part.units] = part.levels[picked[:, index]]
    damage = sum(part.damages[picked[:, index]] for index, part in enumerate(parts))
    return levels, problem.cost_values(levels)["macs"], damage


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_joins_are_the_best_of_all_at_their_true_cost(coupled, seed):
    problem = synthetic_problem(units=6, levels=4, coupled=coupled).problem
    parts = choices(problem, (5, 4, 6), seed)
    _, costs, damage = all_joins(problem, parts)
    joiner = Joiner(problem, parts, "macs")
    assert joiner.least == costs.min()
    for budget in np.linspace(costs.min(), costs.max(), 7):
        found = joiner.allocate(budget)
        assert found.exact
        assert found.damage == pytest.approx(damage[costs <= budget].min())
        assert problem.cost_values(np.array([joiner.join(budget)]))["macs"][0] == found.cost <= budget


def test_costs_that_only_a_function_knows_are_kept_too():
    synthetic = synthetic_problem(units=6, levels=4)
    costs = synthetic.problem.costs.with_cost("ms", lambda kept: float(sum(kept.values())) ** 1.5)
    problem = replace(synthetic.problem, costs=costs)
    parts = choices(problem, (5, 4, 6))
    joiner = Joiner(problem, parts, "ms")
    levels, _, damage = all_joins(problem, parts)
    values = problem.cost_values(levels)["ms"]
    for budget in np.quantile(values, [0.3, 0.6]):
        found = joiner.allocate(budget)
        assert found.cost <= budget
        assert found.damage <= 1.3 * damage[values <= budget].min() + 1e-9


def test_a_coarsened_cost_is_the_cost_of_the_join():
    problem = synthetic_problem(units=6, levels=4, coupled=True).problem
    parts = choices(problem, (3, 2, 4))
    levels, costs, _ = all_joins(problem, parts)
    assert coarsened(terms_of(problem, "macs"), parts).cost(everything((3, 2, 4))) == pytest.approx(costs)
    joiner = Joiner(problem, parts, "macs")
    assert [joiner.levels(row) for row in everything((3, 2, 4))] == [tuple(row) for row in levels.tolist()]


def test_a_join_keeps_other_bounds():
    problem = synthetic_problem(units=6, levels=4, budget=0.5, objectives=3).problem
    parts = choices(problem, (5, 4, 6))
    joiner = Joiner(problem, parts, "params")
    levels = joiner.join(problem.costs.dense()["params"])
    assert problem.feasible(np.array([levels]))[0]


def test_a_part_alone_costs_what_the_whole_network_costs():
    problem = synthetic_problem(units=5, levels=4, coupled=True).problem
    start = (1, 2, 0, 3, 1)
    part = restricted(problem, np.array([1, 2]), start)
    for levels in everything((4, 4)):
        whole = (1, *levels.tolist(), 3, 1)
        assert part.costs_of(Candidate(tuple(levels))) == problem.costs_of(Candidate(whole))


@pytest.mark.parametrize("slots", [1, 4])
def test_where_damages_add_up_the_joins_are_the_best_of_all_networks(slots):
    synthetic = synthetic_problem(units=6, levels=4, interaction=0.0, coupled=True, seed=4)
    rows = everything([4] * 6)
    costs = synthetic.problem.cost_values(rows)["macs"]
    removed = rows / 4
    kl = removed**2 @ synthetic.weights
    told = answered(EmoSearch(synthetic.problem, parts=3, networks=16, plans=8), synthetic, slots=slots)
    assert len(told) <= 3 * 16 + 8
    for budget in np.linspace(costs.min(), costs.max(), 8):
        found = min(e.values["kl"] for e in told if e.values["macs"] <= budget)
        assert found == pytest.approx(kl[costs <= budget].min())


def test_parts_change_their_own_consecutive_units_and_take_turns():
    synthetic = synthetic_problem(units=6, levels=4)
    searcher = EmoSearch(synthetic.problem, parts=3, networks=10, plans=2)
    told = answered(searcher, synthetic, 28)
    groups = [{0, 1}, {2, 3}, {4, 5}]
    changed = [set(np.flatnonzero(e.candidate.levels).tolist()) for e in told]
    assert all(any(c <= group for group in groups) for c in changed)
    assert [sum(bool(c) and c <= group for c in changed) for group in groups] == [9, 9, 9]  # and dense, of all


def test_bounds_leave_room_for_parts_around_a_narrower_reference():
    synthetic = synthetic_problem(units=6, levels=6, budget=0.4)
    told = answered(EmoSearch(synthetic.problem, parts=3, networks=20, plans=6), synthetic)
    limit = 0.4 * synthetic.problem.costs.dense()["macs"]
    assert max(e.values["macs"] for e in told) <= limit
    assert len(told) > 30


def test_a_part_without_anything_that_worked_leaves_nothing_to_join():
    synthetic = synthetic_problem(units=4, levels=3)
    searcher = EmoSearch(synthetic.problem, parts=2, networks=5)
    while asked := searcher.ask(10):
        searcher.tell([Evaluation(c, status="failed", cause="a test") for c in asked])
    assert searcher.ask(1) == []


def test_more_parts_than_units_are_one_for_each():
    synthetic = synthetic_problem(units=2, levels=3)
    told = answered(EmoSearch(synthetic.problem, parts=9), synthetic)
    assert len(told) >= 5


def test_costs_alone_are_an_error():
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match="expected an objective besides the costs"):
        EmoSearch(replace(problem, objectives=problem.objectives[1:], distortion=None))


def test_a_budget_below_all_joins_is_out_of_reach():
    problem = synthetic_problem(units=6, levels=4).problem
    joiner = Joiner(problem, choices(problem, (2, 2, 2)), "macs")
    with pytest.raises(InfeasibleBudget, match="cannot be reached"):
        joiner.join(joiner.least - 1)
