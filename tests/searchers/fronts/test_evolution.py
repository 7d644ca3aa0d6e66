from __future__ import annotations

import numpy as np
import pytest
from allocation_instances import K1_FRONT

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front, hypervolume
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, SpaceError
from autoprune.plan.ladder import ladder
from autoprune.searchers.fronts.evolution import EvolutionSearch, Individual, select_by_crowding, select_by_references
from autoprune.searchers.fronts.random import RandomSearch
from autoprune.testing import check_searcher, synthetic_problem, trace


def test_selection_ranks_the_published_toy_in_three_fronts():
    """METHODS of the field, minimised: p0 to p6 with a duplicate; fronts {0,1,3,5} {2,6} {4}."""
    points = [(1, 5), (2, 3), (3, 4), (4, 1), (5, 5), (2, 3), (6, 2)]
    members = select_by_crowding([Individual((i,), losses) for i, losses in enumerate(points)], 7)
    assert {member.levels[0]: member.rank for member in members} == {0: 0, 1: 0, 3: 0, 5: 0, 2: 1, 6: 1, 4: 2}


def test_selection_drops_the_most_crowded_of_a_front():
    points = [(1.0, 4.0), (2.0, 2.0), (3.0, 1.5), (4.0, 1.0)]  # crowding inf, .75, .5, inf
    kept = select_by_crowding([Individual((i,), losses) for i, losses in enumerate(points)], 3)
    assert {member.levels[0] for member in kept} == {0, 1, 3}


def test_one_objective_is_ranked_by_its_loss():
    members = select_by_crowding([Individual((i,), (loss,)) for i, loss in enumerate((3.0, 1.0, 2.0, 1.0))], 3)
    assert sorted((member.levels[0], member.rank) for member in members) == [(1, 0), (2, 1), (3, 0)]


def test_an_empty_pool_selects_nobody():
    assert select_by_crowding([], 4) == []


def test_the_first_generation_holds_dense_the_ladder_and_the_seeds():
    problem = synthetic_problem(units=6, levels=6).problem
    seeds = [(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)]
    first = EvolutionSearch(problem, population=30, seeds=seeds, rungs=4).ask(100)
    levels = [candidate.levels for candidate in first]
    assert len(levels) == 30
    assert {problem.space.dense.levels, *ladder(problem, 4), *seeds} <= set(levels)


def test_seeds_outside_the_bounds_are_repaired_and_of_the_wrong_shape_an_error():
    problem = synthetic_problem(units=4, levels=4, budget=0.3).problem
    first = EvolutionSearch(problem, seeds=[(0, 0, 0, 0)]).ask(100)
    assert problem.feasible(np.array([c.levels for c in first])).all()
    with pytest.raises(SpaceError, match="expected 4 level indices"):
        EvolutionSearch(problem, seeds=[(0, 0)]).ask(1)


def test_the_first_generation_covers_the_range_of_the_cost():
    problem = synthetic_problem(units=30, levels=10).problem
    levels = np.array([c.levels for c in EvolutionSearch(problem, population=40).ask(40)])
    least, most = problem.reach()["macs"]
    position = np.sort((problem.cost_values(levels)["macs"] - least) / (most - least))
    assert np.diff(position).max() < 0.1


def test_nobody_waits_for_the_answers_to_a_generation():
    synthetic = synthetic_problem()
    searcher = EvolutionSearch(synthetic.problem, population=8, rungs=2)
    asked = searcher.ask(20)
    for _ in range(10):
        searcher.tell([synthetic.evaluate(asked[-1])])
        new = searcher.ask(5)
        assert len(new) == 5
        assert not set(new) & set(asked)
        asked += new


def test_what_was_told_before_is_the_first_population():
    synthetic = synthetic_problem()
    donor = RandomSearch(synthetic.problem)
    told = [synthetic.evaluate(c) for c in donor.ask(20)]
    searcher = EvolutionSearch(synthetic.problem, seed=2, population=12, rungs=3)
    searcher.tell(told)
    asked = searcher.ask(2)
    assert [c.levels for c in asked] == ladder(synthetic.problem, 3)[1:]  # dense was told
    searcher.tell([synthetic.evaluate(c) for c in asked])
    assert all(
        is_child(child.levels, [e.candidate.levels for e in told] + [c.levels for c in asked])
        for child in searcher.ask(12)
    )


def is_child(levels, parents):
    """Whether all but three of the levels are those of one parent or another."""
    return sum(all(level != parent[unit] for parent in parents) for unit, level in enumerate(levels)) <= 3


def test_a_first_population_that_is_known_whole_is_bred_from_at_once():
    synthetic = synthetic_problem()
    first = EvolutionSearch(synthetic.problem, population=12, rungs=3)
    told = [synthetic.evaluate(c) for c in first.ask(12)]
    searcher = EvolutionSearch(synthetic.problem, population=12, rungs=3)
    searcher.tell(told)
    children = {c.levels for c in searcher.ask(12)}
    assert len(children) == 12
    assert not children & {e.candidate.levels for e in told}


def test_swaps_change_two_units_and_keep_the_cost_about_as_it_is():
    synthetic = synthetic_problem(units=40, levels=20)
    searcher = EvolutionSearch(synthetic.problem, population=2, rungs=1, crossover=0.0, swaps=1.0)
    parents = np.array([[9] * 40, [12] * 40])
    searcher.tell([synthetic.evaluate(Candidate(tuple(row))) for row in parents.tolist()])
    _, *children = (c.levels for c in searcher.ask(31))  # dense comes first
    assert (np.array(children)[:, None] != parents).sum(axis=2).min(axis=1).max() <= 2
    costs = synthetic.problem.cost_values(np.array(children))["macs"]
    shares = np.abs(costs[:, None] / synthetic.problem.cost_values(parents)["macs"] - 1).min(axis=1)
    assert np.median(shares) < 0.01


@pytest.mark.parametrize("option", ["crossover", "swaps"])
def test_swaps_keep_the_contract_and_are_a_share(option):
    check_searcher(lambda problem, seed: EvolutionSearch(problem, seed=seed, **{option: 0.7}), evaluations=40)
    with pytest.raises(ConfigError, match=f"expected {option} to be a share from 0 to 1, got 2"):
        EvolutionSearch(synthetic_problem().problem, **{option: 2})


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_crossover_that_is_no_share_is_an_error(value):
    with pytest.raises(ConfigError, match="expected crossover to be a share from 0 to 1, got"):
        EvolutionSearch(synthetic_problem().problem, crossover=value)


def test_measured_networks_outside_the_bounds_are_no_parents():
    synthetic = synthetic_problem(budget=0.4)
    searcher = EvolutionSearch(synthetic.problem, population=4, rungs=1)
    searcher.tell([synthetic.evaluate(synthetic.problem.space.dense)])
    assert len(searcher.ask(4)) == 4


def test_a_population_that_failed_whole_is_drawn_anew():
    synthetic = synthetic_problem()
    searcher = EvolutionSearch(synthetic.problem, population=6)
    searcher.tell([Evaluation(c, status="failed", cause="a test") for c in searcher.ask(100)])
    assert len(searcher.ask(6)) == 6


def test_children_are_near_their_parents():
    """At most three units leave the values that the parents have there, by at most three levels each."""
    synthetic = synthetic_problem(units=20, levels=20)
    searcher = EvolutionSearch(synthetic.problem, population=2, rungs=2)
    first = searcher.ask(2)
    searcher.tell([synthetic.evaluate(c) for c in first])
    parents = np.array([c.levels for c in first])
    for child in searcher.ask(2):
        distance = np.abs(np.array(child.levels) - parents).min(axis=0)
        assert 1 <= np.count_nonzero(distance) <= 3
        assert distance.max() <= 3


def test_the_front_of_k1_is_reached_with_enough_evaluations(k1):
    told = []
    trace(EvolutionSearch(k1.problem), k1.problem, lambda _, c: told.append(k1.evaluate(c)) or told[-1], 300)
    front = Front.of(told, k1.problem.objectives, {})
    assert len(told) == 256
    assert len(front) == len(K1_FRONT)
    assert front.hypervolume((29, 37)) == pytest.approx(657.5)


def test_most_of_k1s_front_is_reached_with_half_its_networks(k1):
    for seed in range(3):
        told = []
        searcher = EvolutionSearch(k1.problem, seed=seed, population=20)
        trace(searcher, k1.problem, lambda _, c, told=told: told.append(k1.evaluate(c)) or told[-1], 128)
        assert Front.of(told, k1.problem.objectives, {}).hypervolume((29, 37)) > 0.95 * 657.5


def test_a_population_of_one_is_an_error():
    with pytest.raises(ConfigError, match="expected population to be a whole number of at least 2, got 1"):
        EvolutionSearch(synthetic_problem().problem, population=1)


def test_selection_by_references_keeps_the_contract():
    check_searcher(lambda problem, seed: EvolutionSearch(problem, seed=seed, selection="nsga3"), evaluations=60)


def test_reference_directions_spread_what_crowding_distance_does_not():
    rng = np.random.default_rng(0)
    points = np.abs(rng.standard_normal((400, 3)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)  # all on DTLZ2's front, a part of the unit sphere
    pool = [Individual((i,), row) for i, row in enumerate(points.tolist())]
    chosen = select_by_references(pool, 91, np.random.default_rng(1))
    assert len(chosen) == 91
    volume = hypervolume(np.array([m.fitness.values for m in chosen]), (1.1,) * 3)
    random = hypervolume(points[:91], (1.1,) * 3)
    assert random < volume < 1.331 - np.pi / 6  # of the whole front


def test_an_unknown_selection_is_an_error():
    with pytest.raises(ConfigError, match="expected selection to be one of .'nsga2', 'nsga3'., got 'spea2'"):
        EvolutionSearch(synthetic_problem().problem, selection="spea2")
