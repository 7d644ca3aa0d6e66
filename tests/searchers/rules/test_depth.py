"""Rules for transformers: orders of blocks, stages of a path, and the two stages of 2SSP, against sums by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.problem import BlockDistances, Problem
from autoprune.core.space import SearchSpace
from autoprune.errors import ConfigError
from autoprune.searchers import make_searcher
from autoprune.searchers.rules.search import plans_of
from autoprune.testing import trace

LOSSES = np.array([5.0, 1.0, 4.0, 2.0])  # of the network without each block alone


def branch_problem(blocks=4, widths=(), attention=1, mlp=1):
    """Blocks of an attention and an MLP branch with the given costs; `widths` are levels of each MLP's neurons."""
    levels = {f"h.{block}.{part}/branch": (1, 0) for block in range(blocks) for part in ("attn", "mlp")}
    if widths:
        levels = {f"h.{block}.mlp.up": widths for block in range(blocks)} | levels
    macs = Polynomial.constant(3)
    for block in range(blocks):
        inside = Polynomial.of(f"h.{block}.mlp.up") if widths else Polynomial.constant(1)
        macs = macs + attention * Polynomial.of(f"h.{block}.attn/branch")
        macs = macs + mlp * Polynomial.of(f"h.{block}.mlp/branch") * inside
    objectives = Objective("perplexity", "min"), Objective("macs", "min")
    costs = CostModel({name: counts[0] for name, counts in levels.items()}, {"macs": macs})
    return Problem(SearchSpace(tuple(levels), tuple(levels.values())), objectives, costs)


def removed_branches(problem, levels):
    return {unit for unit, level in zip(problem.space.units, levels, strict=True) if level and "/branch" in unit}


def removed_blocks(problem, levels):
    gone = removed_branches(problem, levels)
    whole = [b for b in range(4) if {f"h.{b}.attn/branch", f"h.{b}.mlp/branch"} <= gone]
    assert len(gone) == 2 * len(whole)
    return whole


def found(problem, name, loss, **options):
    def answer(number, candidate):
        return Evaluation(candidate, {"perplexity": loss(candidate.levels), **problem.costs_of(candidate)})

    return [candidate.levels for candidate in trace(make_searcher(name, problem, **options), problem, answer, 200)]


def without_blocks(problem, **options):
    """The blocks that are gone in each proposed network; the loss is the sum of those without each of them."""
    rows = found(problem, "depth", lambda levels: 1 + LOSSES[removed_blocks(problem, levels)].sum(), **options)
    return [removed_blocks(problem, levels) for levels in rows]


def test_blocks_go_in_the_order_of_the_losses_without_them():
    assert without_blocks(branch_problem()) == [[], [0], [1], [2], [3], [1, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_first_and_last_blocks_may_stay():
    assert without_blocks(branch_problem(), first=1, last=1) == [[], [1], [2], [1, 2]]


def test_blocks_go_in_the_order_of_their_influence():
    distances = BlockDistances(np.array([0.4, 0.3, 0.1, 0.2]), np.zeros((5, 5)))
    problem = replace(branch_problem(), block_distances=lambda: distances)
    assert without_blocks(problem, order="influence") == [[], [2], [2, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_consecutive_blocks_go_where_the_hidden_state_turns_least():
    """Hidden states in a plane, at the given shares of a half turn."""
    states = np.array([0.0, 0.3, 0.5, 0.6, 0.35])
    distances = BlockDistances(np.zeros(4), np.abs(states[:, None] - states))
    problem = replace(branch_problem(), block_distances=lambda: distances)
    assert without_blocks(problem, order="angle", last=1) == [[], [2], [1, 2], [0, 1, 2]]
    assert without_blocks(problem, order="angle") == [[], [2], [2, 3], [1, 2, 3], [0, 1, 2, 3]]


def test_an_order_by_hidden_states_needs_them():
    with pytest.raises(ConfigError, match="Order blocks by `loss`"):
        without_blocks(branch_problem(), order="angle")


@pytest.mark.parametrize(("share", "branches"), [(0.25, 1), (0.375, 2), (0.5, 5)])
def test_the_number_of_attention_branches_is_that_of_the_equation_for_llama_3_8b(share, branches):
    """32 blocks whose MLP costs 4.2 times their attention: round(32 s ** 2.8)."""
    problem = branch_problem(32, (10, 5), attention=50, mlp=21)
    keep = [unit for unit in problem.space.units if not unit.endswith("mlp/branch")]
    levels = dict(zip(problem.space.units, problem.space.levels, strict=True))
    own = SearchSpace(tuple(keep), tuple(levels[unit] for unit in keep))
    searcher = make_searcher("two_stage", replace(problem, space=own))
    of_blocks = 32 * (50 + 210)
    assert searcher.branches_to_remove(share * of_blocks / (of_blocks + 3)) == branches


def test_two_stages_narrow_all_neurons_and_then_remove_the_branches_of_least_loss():
    problem = branch_problem(4, (8, 6, 4, 2), attention=8, mlp=1)
    keep = [unit for unit in problem.space.units if not unit.endswith("mlp/branch")]
    levels = dict(zip(problem.space.units, problem.space.levels, strict=True))
    problem = replace(problem, space=SearchSpace(tuple(keep), tuple(levels[unit] for unit in keep)))

    def loss(row):
        return sum(LOSSES[int(name[2])] for name in removed_branches(problem, row))

    rows = found(problem, "two_stage", loss, plans=2)
    dense, half = problem.costs.dense()["macs"], 3 + 32
    costs = problem.cost_values(np.array(rows))["macs"]
    assert rows[0] == problem.space.dense.levels
    assert dense == 3 + 64
    # the budget between 11 and 67 is 39; of 28 / 64 of the blocks' cost, round(4 (28 / 64) ** (1 / 1.5)) = 2 branches
    # save 16, and neurons of 6 / 8 and then 4 / 8 at most 8 and 16: 67 - 16 - 16 = 35
    last = [levels for levels, cost in zip(rows, costs, strict=True) if cost == half]
    assert all(set(levels[:4]) == {2} for levels in last)
    gone = {frozenset(int(name[2]) for name in removed_branches(problem, levels)) for levels in last}
    assert gone == {frozenset({1, other}) for other in (0, 2, 3)}  # the first round removed the branch of block 1


def test_the_uniform_rule_keeps_branches_beside_widths_until_the_smallest_network():
    problem = branch_problem(2, (4, 3, 2, 1))
    plans = [levels for _, levels in plans_of(problem, "uniform", "macs")]
    assert {levels[0] for levels in plans} == {0, 1, 2, 3}
    assert not any(removed_branches(problem, levels) for levels in plans[:-1])
    assert plans[-1] == problem.space.smallest.levels


def test_stages_open_branches_then_neurons_until_the_budget():
    problem = branch_problem(2, (4, 3, 2, 1), attention=4, mlp=2)  # 3 + 2 (4 + 8) = 27
    stages = {"*attn/branch": 0.5, "*up": 0.5}
    rows = found(problem, "greedy", lambda levels: sum(levels), stages=stages, budget=15 / 27)
    costs = problem.cost_values(np.array(rows))["macs"]
    assert costs.min() == 15  # 27 - 4 for one branch, - 4 for the other, which is beyond half of 12, then neurons
    first = [levels for levels in rows if not any(levels[:2])]
    assert len(first) == 1 + 2 + 1  # dense, both branches, and the other one
    assert all(levels[3] == levels[5] == 0 for levels in rows)  # the MLPs themselves are in no stage


def test_a_stage_of_no_unit_is_refused():
    with pytest.raises(
        ConfigError, match=r"expected a unit for the pattern of every stage, got none for \['\*heads\*'\]"
    ):
        make_searcher("greedy", branch_problem(), stages={"*": 1.0, "*heads*": 1.0})


def test_a_greedy_path_over_branches_removes_the_best_of_all_remaining_ones_each_time():
    """BlockPruner's path against all subsets: losses of pairs are more than the sum of both."""
    problem = branch_problem(2)
    rng = np.random.default_rng(0)
    table = {row: float(rng.uniform(1, 2) + sum(row)) for row in itertools.product((0, 1), repeat=4)}
    rows = found(problem, "greedy", table.__getitem__)
    path = [(0, 0, 0, 0)]
    for _ in range(4):
        narrower = [(*path[-1][:u], 1, *path[-1][u + 1 :]) for u in range(4) if not path[-1][u]]
        assert set(narrower) <= set(rows)
        path.append(min(narrower, key=table.__getitem__))
