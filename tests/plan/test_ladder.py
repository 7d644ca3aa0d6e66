"""Uniform networks of spaces with branches, and widths that removed branches make idle."""

from __future__ import annotations

import itertools

import numpy as np

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import SearchSpace
from autoprune.plan.allocation import Allocator
from autoprune.plan.idle import IdleWidths
from autoprune.plan.ladder import uniform_levels

UNITS = "stream", "heads", "neurons", "attention", "mlp"
SPACE = SearchSpace(UNITS, ((4, 2), (3, 2, 1), (4, 3, 2, 1), (1, 0), (1, 0)))


def problem():
    """One block of a network: a stream that its attention of some heads and its MLP of some neurons read."""
    stream, heads, neurons, attention, mlp = map(Polynomial.of, UNITS)
    macs = 5 * stream + 2 * stream * heads * attention + 3 * stream * neurons * mlp
    widths = dict(zip(UNITS, (4, 3, 4, 1, 1), strict=True))
    objectives = Objective("perplexity", "min"), Objective("macs", "min")
    return Problem(SPACE, objectives, CostModel(widths, {"macs": macs}), distortion="kl")


def test_branches_beside_widths_stay_in_all_uniform_networks_but_the_smallest():
    rows = uniform_levels(SPACE).tolist()
    assert rows[0] == [0, 0, 0, 0, 0]
    assert rows[-1] == [1, 2, 3, 1, 1]
    assert rows[-2] == [1, 2, 3, 0, 0]
    assert all(row[3:] == [0, 0] for row in rows[:-1])


def test_without_widths_the_uniform_networks_keep_or_remove_all_branches():
    assert uniform_levels(SearchSpace(("a", "b"), ((1, 0), (1, 0)))).tolist() == [[0, 0], [1, 1]]


def test_widths_of_a_removed_branch_are_idle_and_those_that_others_read_are_not():
    idle = IdleWidths(problem())
    assert idle.dense((1, 2, 3, 0, 0)) == (1, 2, 3, 0, 0)
    assert idle.dense((1, 2, 3, 1, 0)) == (1, 0, 3, 1, 0)
    assert idle.dense((1, 2, 3, 1, 1)) == (1, 0, 0, 1, 1)


def test_plans_with_branches_are_the_best_of_all_networks_within_the_budget():
    """A removed branch saves the cost of its widths at any level, so that plans leave these as they are."""
    stated = problem()
    rng = np.random.default_rng(0)
    table = np.full((5, 4), np.inf)
    for row, counts in zip(table, SPACE.levels, strict=True):
        row[: len(counts)] = np.cumsum([0.0, *rng.uniform(0.5, 2.0, len(counts) - 1)])
    rows = np.array(list(itertools.product(*map(range, SPACE.sizes))))
    damages, costs = table[np.arange(5), rows].sum(axis=1), stated.cost_values(rows)["macs"]
    allocator = Allocator(stated, table, "macs")
    for budget in np.linspace(costs.min(), costs.max(), 12):
        allocation = allocator.allocate(float(budget))
        assert allocation.exact
        assert allocation.damage == damages[costs <= budget].min()
        assert IdleWidths(stated).dense(allocation.levels) == allocation.levels
