from __future__ import annotations

import numpy as np
from allocation_instances import K1_FRONT

from autoprune.core.front import Front
from autoprune.searchers.fronts.random import RandomSearch
from autoprune.testing import synthetic_problem, trace


def test_dense_is_first_if_the_bounds_allow_it():
    assert RandomSearch(synthetic_problem().problem).ask(1)[0].levels == (0,) * 8
    assert RandomSearch(synthetic_problem(budget=0.5).problem).ask(1)[0].levels != (0,) * 8


def test_the_whole_range_of_costs_is_covered():
    synthetic = synthetic_problem(units=30, levels=10)
    found = RandomSearch(synthetic.problem).ask(100)
    costs = synthetic.problem.cost_values(np.array([c.levels for c in found]))["macs"]
    least, most = synthetic.problem.reach()["macs"]
    counts, _ = np.histogram((costs - least) / (most - least), bins=5, range=(0, 1))
    # each fifth expects 20 of 100: fewer than 5 has a probability of 1.4e-5, so 7e-5 over five of them
    assert counts.min() >= 5


def test_what_is_proposed_does_not_depend_on_how_many_are_asked_for_at_once():
    problem = synthetic_problem().problem
    one, many = RandomSearch(problem, seed=4), RandomSearch(problem, seed=4)
    assert [one.ask(1)[0] for _ in range(12)] == many.ask(12)


def test_a_small_space_is_searched_to_the_last_network(k1):
    told = []
    found = trace(RandomSearch(k1.problem), k1.problem, lambda _, c: told.append(k1.evaluate(c)) or told[-1], 1000)
    assert len(found) == 256
    assert len(Front.of(told, k1.problem.objectives, {})) == len(K1_FRONT)
