from __future__ import annotations

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import SearchSpace
from autoprune.errors import ConfigError
from autoprune.plan.ladder import coarse_to_fine, ladder, uniform_levels
from autoprune.searchers.rules.uniform import UniformSearch
from autoprune.testing import synthetic_problem, trace


def test_equal_units_step_down_together():
    space = SearchSpace(("a", "b"), ((8, 4, 2), (16, 8, 4)))
    assert uniform_levels(space).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_every_share_finds_each_unit_at_its_nearest_level():
    space = SearchSpace(("a", "b", "c"), ((10, 7, 3), (8, 6, 5, 1), (4,)))
    rows = uniform_levels(space)
    wanted = []
    for share in np.linspace(1, 0, 20_001)[:-1]:  # ties, at four borders, have other neighbours on this grid
        row = [int(np.abs(np.array(c) / c[0] - share).argmin()) for c in space.levels]
        wanted += [row] if not wanted or wanted[-1] != row else []
    assert rows.tolist() == wanted


def test_the_ladder_runs_from_dense_to_smallest_and_is_capped():
    problem = synthetic_problem(levels=10).problem
    assert len(ladder(problem, 20)) == 10
    rungs = ladder(problem, 4)
    assert rungs == [(0,) * 8, (3,) * 8, (6,) * 8, (9,) * 8]
    assert ladder(problem, 1) == [(0,) * 8]


def test_a_budget_cuts_the_ladder_from_above():
    problem = synthetic_problem(levels=10, budget=0.55).problem
    assert ladder(problem, 20) == [(level,) * 8 for level in range(5, 10)]


def test_order_is_ends_then_middles():
    items = [(i,) for i in range(9)]
    assert [i for (i,) in coarse_to_fine(items)] == [0, 8, 4, 2, 6, 1, 3, 5, 7]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10])
def test_order_keeps_every_item_once(size):
    items = [(i,) for i in range(size)]
    assert sorted(coarse_to_fine(items)) == items


def test_the_searcher_proposes_the_ladder_and_ends():
    synthetic = synthetic_problem(levels=5)
    found = trace(UniformSearch(synthetic.problem), synthetic.problem, lambda _, c: synthetic.evaluate(c), 50)
    assert [candidate.levels[0] for candidate in found] == [0, 4, 2, 1, 3]


def test_a_space_of_one_network_is_one_rung():
    problem = Problem(
        SearchSpace(("a",), ((3,),)),
        (Objective("accuracy", "max"),),
        CostModel({"a": 3}, {"macs": Polynomial.of("a")}),
    )
    assert [c.levels for c in UniformSearch(problem).ask(5)] == [(0,)]


def test_rungs_below_one_are_an_error():
    with pytest.raises(ConfigError, match="expected rungs to be a whole number of at least 1, got 0"):
        UniformSearch(synthetic_problem().problem, rungs=0)
