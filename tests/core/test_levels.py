"""Levels by hand arithmetic, patterns, and what is said when they match nothing."""

from __future__ import annotations

import pytest

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.unit import Unit
from autoprune.errors import SpaceError

UNITS = (
    Unit("layer1.conv1", "channels", 16, ()),
    Unit("layer2.conv1", "channels", 10, ()),
    Unit("fc1", "heads", 4, ()),
)


@pytest.mark.parametrize(
    ("keep", "width", "options", "expected"),
    [
        ((0.7,), 10, {}, (10, 7)),  # 0.7 * 10 is 7.000000000000001 for a float
        ((0.1, 0.2, 0.3, 0.6, 0.7, 0.9), 10, {}, (10, 9, 7, 6, 3, 2, 1)),
        ((0.71,), 10, {}, (10, 8)),
        ((0.5, 0.25), 16, {"round_to": 8}, (16, 8)),
        ((0.5,), 20, {"round_to": 8}, (20, 16)),
        ((0.9,), 20, {"round_to": 8}, (20,)),
        ((0.25, 0.5, 0.75), 16, {"min_keep": 8}, (16, 12, 8)),
        ((0.25, 0.5, 0.75), 16, {"min_keep": 0.5}, (16, 12, 8)),
        ((0.25, 0.5, 0.75), 16, {"min_keep": 0.51}, (16, 12)),
        ((0.5,), 1, {}, (1,)),
        ((0.001,), 16, {}, (16, 1)),
        ((1.0,), 16, {}, (16,)),
        ((), 16, {}, (16,)),
        ((0.5, 0.5, 0.51), 4, {}, (4, 3, 2)),
    ],
)
def test_shares_become_counts_rounded_up(keep, width, options, expected):
    assert LevelRule("*", keep, **options).levels(width) == expected


@pytest.mark.parametrize(
    ("keep", "width", "least", "options", "expected"),
    [
        ((1, 0), 1, 0, {}, (1, 0)),
        ((0, 0.5), 1, 0, {}, (1, 0)),
        ((0,), 1, 0, {"min_keep": 4, "round_to": 8}, (1, 0)),
        ((0.125, 0.5, 1), 1, 0, {}, (1,)),  # equal steps leave a branch alone
        ((1, 0), 8, 1, {}, (8,)),
        ((0.5, 0.25, 0), 8, 1, {}, (8, 4, 2)),
        ((0.5, 0.25), 8, 3, {}, (8, 4)),
        ((0.5, 0.25), 8, 3, {"min_keep": 5}, (8,)),
    ],
)
def test_no_level_keeps_less_than_the_unit_must(keep, width, least, options, expected):
    assert LevelRule("*", keep, **options).levels(width, least) == expected


def test_every_unit_of_a_space_keeps_what_it_must():
    units = (Unit("a", "heads", 8, (), least=4), Unit("b/branch", "branches", 1, (), least=0))
    space = build_space(units, (LevelRule("*", (0.5, 0.25, 0)),))
    assert space.levels == ((8, 4), (1, 0))


@pytest.mark.parametrize("width", range(1, 70))
def test_tenths_keep_at_least_their_share_and_less_than_one_position_more(width):
    for tenths in range(1, 10):
        count = LevelRule("*", (tenths / 10,)).levels(width)[-1]
        assert 0 <= 10 * count - tenths * width < 10


def test_the_first_rule_that_matches_decides():
    rules = (LevelRule("layer1.*", (0.5,)), LevelRule("*", (0.25,)))
    assert build_space(UNITS, rules).levels == ((16, 8), (10, 3), (4, 1))


def test_a_rule_without_shares_leaves_its_units_out():
    space = build_space(UNITS, (LevelRule("layer*"), LevelRule("*", (0.5,))))
    assert space.units == ("fc1",)


def test_units_that_no_rule_matches_are_left_out():
    assert build_space(UNITS, (LevelRule("layer2.conv[0-9]", (0.5,)),)).units == ("layer2.conv1",)


def test_a_rule_may_be_for_one_kind_of_unit():
    assert build_space(UNITS, (LevelRule("*", (0.5,), kind="heads"),)).units == ("fc1",)


def test_a_pattern_without_match_names_where_it_stands_and_what_comes_close():
    rules = (LevelRule("layer1.conv2", (0.5,), source="space.yaml:3"),)
    with pytest.raises(SpaceError, match=r"space.yaml:3: pattern 'layer1.conv2' matches no unit.*'layer1.conv1'"):
        build_space(UNITS, rules)


def test_a_pattern_of_another_kind_says_which_units_of_that_kind_there_are():
    with pytest.raises(SpaceError, match=r"'layer\*' matches no unit of kind 'heads'; units of kind 'heads' .*'fc1'"):
        build_space(UNITS, (LevelRule("layer*", (0.5,), kind="heads"),))
    with pytest.raises(SpaceError, match="there is no unit of kind 'experts' at all"):
        build_space(UNITS, (LevelRule("*", (0.5,), kind="experts"),))


def test_a_space_without_a_choice_is_refused():
    with pytest.raises(SpaceError, match="at least one of 3 units more than its dense level"):
        build_space(UNITS, (LevelRule("*", (0.5,), min_keep=16),))
    with pytest.raises(SpaceError, match="at least one of 0 units"):
        build_space((), ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"keep": (-0.1,)},
        {"keep": (1.5,)},
        {"keep": (float("nan"),)},
        {"keep": (0.5,), "round_to": 0},
        {"keep": (0.5,), "min_keep": 0},
        {"keep": (0.5,), "min_keep": 2.5},
        {"keep": (0.5,), "min_keep": float("nan")},
    ],
)
def test_a_rule_that_cannot_make_levels_is_refused_where_it_is_written(wrong):
    with pytest.raises(SpaceError, match=r"space.yaml:7: pattern 'conv\*': expected shares from 0 to 1"):
        LevelRule("conv*", source="space.yaml:7", **wrong)


def test_a_units_own_step_and_the_rules_are_kept_both():
    rule = LevelRule("*", (0.25, 0.5, 0.75), round_to=6)
    assert rule.levels(60, multiple=4) == (60, 48, 36, 24)
    assert rule.levels(60) == (60, 48, 30, 18)
