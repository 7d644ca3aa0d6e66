"""How many entries stay and what that costs, by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.levels import GRIDS, LevelRule, build_space, floors
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import SearchSpace
from autoprune.core.sparse import SparseWeight, with_sparse_costs
from autoprune.core.unit import Slot, Span, Unit
from autoprune.errors import SpaceError
from autoprune.plan.allocation import Allocator
from autoprune.plan.exact.terms import terms_of

A, B, C = Polynomial.of("a"), Polynomial.of("b"), Polynomial.constant
# a 3 x 3 convolution of 4 channels into 6, 25 output places, then 6 into 10 in a linear layer of one row
CONV = SparseWeight("conv", 216, C(9) * A * B, A, 25)
LINEAR = SparseWeight("linear", 60, C(10) * B, B, 1)
DENSE = CostModel(
    {"a": 4, "b": 6}, {"macs": C(225) * A * B + C(10) * B, "params": C(9) * A * B + C(10) * B + B + C(10)}
)
COSTS = with_sparse_costs(DENSE, {"conv": CONV, "linear": LINEAR})
UNITS = ["a", "b", "conv", "linear"]


@pytest.mark.parametrize(
    ("count", "numel", "expected"),
    [(216, 216, 216), (108, 216, 108), (0, 216, 0), (1, 216, 1), (108, 81, 41), (1, 9, 1), (108, 0, 0)],
)
def test_single_entries_keep_their_share_rounded_up(count, numel, expected):
    assert CONV.kept(count, numel, 4) == expected


@pytest.mark.parametrize(
    ("count", "group", "numel", "inputs", "expected"),
    [
        (2, 4, 6 * 8, 8, 24),  # 2:4 of 8 inputs: half
        (1, 4, 6 * 8, 8, 12),
        (2, 4, 6 * 6, 6, 6 * 4),  # 4 + 2 inputs: two of the four and both of the two
        (3, 4, 6 * 5, 5, 6 * 4),
        (4, 8, 9 * 3, 3, 27),  # a group of three keeps all three
        (2, 4, 0, 0, 0),
    ],
)
def test_patterns_keep_their_count_of_every_group(count, group, numel, inputs, expected):
    assert SparseWeight("p", 48, C(1), C(1), 1, group).kept(count, numel, inputs) == expected


def test_costs_of_the_dense_network_are_those_of_dense_storage():
    dense = COSTS.dense()
    assert dense["nonzeros"] == dense["params"] == 216 + 60 + 6 + 10
    assert dense["effective_macs"] == dense["macs"] == 25 * 216 + 60


def test_costs_by_hand_with_and_without_channels():
    kept = np.array([[4, 6, 100, 60], [4, 6, 0, 30], [3, 5, 108, 30]])
    values = COSTS.evaluate(UNITS, kept)
    # third row: 135 entries left in the convolution, half of them rounded up 68; half of 50 is 25
    assert values["nonzeros"].tolist() == [100 + 60 + 16, 30 + 16, 68 + 25 + 15]
    assert values["effective_macs"].tolist() == [2500 + 60, 30, 25 * 68 + 25]
    assert values["params"].tolist() == [292, 292, 135 + 50 + 15]


def test_without_weight_units_the_costs_are_the_same():
    assert with_sparse_costs(DENSE, {}) is DENSE


def problem(units, levels, objective):
    return Problem(SearchSpace(units, levels), (Objective("kl", "min"), Objective(objective, "min")), COSTS)


def test_weight_units_alone_make_a_separable_cost():
    alone = problem(("conv", "linear"), ((216, 100, 0), (60, 30)), "nonzeros")
    assert set(terms_of(alone, "nonzeros").tables) == {(0,), (1,)}
    assert set(terms_of(alone, "effective_macs").tables) == {(0,), (1,)}


MIXED = (("a", "conv", "b", "linear"), ((4, 3, 1), (216, 100, 5, 0), (6, 5), (60, 30, 7)))


@pytest.mark.parametrize("cost", ["nonzeros", "effective_macs"])
def test_the_terms_of_weights_beside_channels_sum_up_to_the_cost(cost):
    mixed = problem(*MIXED, cost)
    terms = terms_of(mixed, cost)
    assert (0, 1, 2) in terms.tables  # rounding ties a weight and both of its channels together
    choices = np.array(list(itertools.product(*(range(size) for size in terms.sizes))))
    assert terms.cost(choices).tolist() == mixed.cost_values(choices)[cost].tolist()


def test_a_weight_that_is_not_searched_costs_what_its_channels_leave():
    some = problem(("b",), ((6, 5, 1),), "nonzeros")
    choices = np.arange(3)[:, None]
    assert terms_of(some, "nonzeros").cost(choices).tolist() == some.cost_values(choices)["nonzeros"].tolist()


def test_a_table_that_would_be_too_large_is_none(monkeypatch):
    monkeypatch.setattr("autoprune.plan.exact.terms.LARGEST_TABLE", 3 * 4 * 2 - 1)
    assert terms_of(problem(*MIXED, "nonzeros"), "nonzeros") is None


def test_plans_of_weights_beside_channels_are_the_best_by_brute_force():
    mixed = problem(*MIXED, "nonzeros")
    choices = np.array(list(itertools.product(*(range(size) for size in mixed.space.sizes))))
    costs = mixed.cost_values(choices)["nonzeros"]
    distortions = np.full((4, 4), np.inf)
    for row, size in zip(distortions, mixed.space.sizes, strict=True):
        row[:size] = np.arange(size) ** 2 * (1 + row.size / (size + 1))
    errors = distortions[np.arange(4), choices].sum(axis=1)
    for budget in np.linspace(costs.min(), costs.max(), 20):
        found = Allocator(mixed, distortions, "nonzeros").allocate(budget)
        assert found.exact
        assert found.cost <= budget
        assert found.damage == pytest.approx(errors[costs <= budget].min())


CHANNELS = Unit("conv", "channels", 8, ())
WEIGHTS = Unit("conv.weight", "weights", 100, (), least=0)
TEN_OUTPUTS = Unit("conv1.weight", "weights", 100, (Slot("conv1.weight", 0, "along", Span(inner=10)),), least=0)
PATTERN = Unit("fc.weight", "pattern", 4, ())


def test_a_rule_without_a_kind_is_not_for_weights():
    assert build_space((CHANNELS, WEIGHTS, PATTERN), (LevelRule("*", (0.5,)),)).units == ("conv",)
    with pytest.raises(SpaceError, match=r"'\*.weight' matches no unit; units here are for example \['conv'\]"):
        build_space((CHANNELS, WEIGHTS), (LevelRule("*.weight", (0.5,)),))


def test_weights_may_all_go_where_the_floor_is_0_and_patterns_may_not():
    rules = (LevelRule("*", (0.5, 0), "weights", floor=0), LevelRule("*", (0.5, 0.25, 0), "pattern"))
    assert build_space((CHANNELS, WEIGHTS, PATTERN), rules).levels == ((100, 50, 0), (4, 2, 1))


def test_a_weight_keeps_an_entry_for_each_output_unless_the_floor_is_0():
    rule = LevelRule("*", GRIDS["percent"], "weights")
    assert build_space((TEN_OUTPUTS,), (rule,)).levels[0][-3:] == (12, 11, 10)
    assert build_space((TEN_OUTPUTS,), (replace(rule, floor=0),)).levels[0][-3:] == (2, 1, 0)


@pytest.mark.parametrize(
    ("keep", "options", "expected"),
    [
        ((0.5, 0.1, 0), {}, (40_000, 20_000, 4_000, 20)),  # 0.0005 of them, more than the ten outputs
        ((0.5, 0), {"floor": 0.1}, (40_000, 20_000, 4_000)),
        ((0.5, 0), {"floor": 1e-9}, (40_000, 20_000, 10)),
        ((0.5, 0), {"min_keep": 30}, (40_000, 20_000, 30)),
        ((0.5, 0), {"min_keep": 0.25}, (40_000, 20_000, 10_000)),
        ((0.5, 0.25), {"min_keep": 0.4}, (40_000, 20_000, 16_000)),  # raised, not dropped
        ((0.5, 0), {"min_keep": 7, "floor": 0}, (40_000, 20_000, 7)),
        ((0.5, 0), {"min_keep": 30, "round_to": 16}, (40_000, 20_000, 32)),
        ((0.5, 0), {"floor": 0.9999}, (40_000, 39_996)),
        ((0.5, 0), {"min_keep": 50_000}, (40_000,)),
    ],
)
def test_counts_below_the_least_of_a_weight_are_raised_to_it(keep, options, expected):
    assert LevelRule("*", keep, "weights", **options).levels(40_000, 0, outputs=10) == expected


def test_the_floors_of_weights_are_those_of_the_first_rule_for_each():
    rules = (LevelRule("conv*", (0.5,), "weights", min_keep=20), LevelRule("*", (0.5,), "weights", floor=0))
    other = Unit("fc.weight", "weights", 100, (), least=0)
    assert floors((CHANNELS, TEN_OUTPUTS, other, PATTERN), rules) == {"conv1.weight": 20, "fc.weight": 0}


@pytest.mark.parametrize("floor", [-0.1, 1, float("nan")])
def test_a_floor_that_is_no_share_is_refused(floor):
    with pytest.raises(SpaceError, match=r"expected a floor from 0 to below 1, the share of its entries"):
        LevelRule("*", (0.5,), "weights", floor=floor)


def test_a_pattern_needs_two_inputs_in_a_group():
    with pytest.raises(SpaceError, match="expected a group of at least 2 inputs, got 1"):
        LevelRule("*", (0.5,), "pattern", group=1)


def test_the_grid_of_rd_has_every_per_cent():
    assert LevelRule("*", GRIDS["percent"], "weights", floor=0).levels(200, 0) == tuple(range(200, -1, -2))


def test_the_grid_of_spdy_is_the_published_one():
    removed = [round(1 - share, 4) for share in GRIDS["spdy"]]
    assert len(removed) == 42
    assert removed[:6] == [0.0, 0.4, 0.4584, 0.5111, 0.5586, 0.6016]
    assert removed[-3:] == [0.9877, 0.9889, 0.99]
