"""Bandits and their rewards: formulas by hand, and the arm that is pulled in the end."""

from __future__ import annotations

from collections import Counter, deque

import numpy as np
import pytest

from autoprune.errors import ConfigError
from autoprune.searchers.common.bandit import REWARD_WINDOW, Arm, check_rule, ranked
from autoprune.searchers.common.gains import Gains


def arm(*rewards, still_open=0):
    return Arm(deque(rewards, REWARD_WINDOW), still_open)


def test_ucb_takes_arms_never_pulled_first_and_then_the_highest_upper_bound():
    rng = np.random.default_rng(0)
    assert ranked("ucb", [arm(1.0), arm(), arm()], rng) == [1, 2, 0]
    # 0.5 + sqrt(2 ln 5 / 4) = 1.397, 0 + sqrt(2 ln 5 / 1) = 1.794
    assert ranked("ucb", [arm(0.5, 0.5, 0.5, 0.5), arm(0.0)], rng) == [1, 0]
    # 0.5 + sqrt(2 ln 8 / 4) = 1.520, 0 + sqrt(2 ln 8 / 4) = 1.020
    assert ranked("ucb", [arm(0.5, 0.5, 0.5, 0.5), arm(0.0, still_open=3)], rng) == [0, 1]


@pytest.mark.parametrize("rule", ["ucb", "thompson"])
def test_the_best_arm_is_pulled_most(rule):
    rng = np.random.default_rng(0)
    arms, pulled = [Arm() for _ in range(3)], Counter()
    for _ in range(600):
        index = ranked(rule, arms, rng)[0]
        arms[index].rewards.append(float(rng.random() < (0.1, 0.2, 0.8)[index]))
        pulled[index] += 1
    assert pulled[2] > 300
    assert min(pulled.values()) > 5  # the others are looked at now and then


def test_old_rewards_are_forgotten():
    changed = Arm()
    changed.rewards.extend([0.0] * REWARD_WINDOW + [1.0] * REWARD_WINDOW)
    assert changed.mean == 1.0
    assert changed.pulls == REWARD_WINDOW


def test_a_copy_of_an_arm_has_its_own_rewards():
    first = arm(1.0, still_open=2)
    second = first.copy()
    second.rewards.append(0.0)
    assert (first.mean, second.mean, second.open) == (1.0, 0.5, 0)


def test_an_unknown_rule_is_an_error():
    with pytest.raises(ConfigError, match=r"expected rule to be one of \['ucb', 'thompson'\], got 'greedy'"):
        check_rule("greedy")


def test_gains_are_ranked_among_the_last_ones():
    gains = Gains()
    assert gains.add((0,), (0.0, 10.0)) == 0  # a first network has no volume to add
    assert gains.add((1,), (10.0, 0.0)) == 1.0  # 10, above the only gain before it
    assert gains.add((2,), (5.0, 5.0)) == 1.0  # 25
    assert gains.add((3,), (9.0, 9.0)) == 0  # dominated
    assert gains.add((4,), None) == 0  # failed
    assert gains.add((5,), (4.9, 5.1)) == 3 / 5  # above three zeros, below 10 and 25
    assert list(gains.front) == [(0,), (1,), (2,), (5,)]


def test_a_gain_is_the_area_that_a_network_adds():
    gains = Gains()
    for levels, losses in (((0,), (0.0, 10.0)), ((1,), (10.0, 0.0))):
        gains.add(levels, losses)
    # the reference is (11, 11): without it 1 * 11 + 10 * 1, with it the square from (5, 5) to (10, 10) more
    assert gains._grown((2,), (5.0, 5.0)) == pytest.approx(25.0)


def test_with_one_objective_a_gain_is_by_how_much_the_best_falls():
    gains = Gains()
    gains.add((0,), (3.0,))
    assert gains._grown((1,), (1.0,)) == pytest.approx(2.0)
    assert gains.add((2,), (1.5,)) == 0
    assert list(gains.front) == [(1,)]


def test_rewards_do_not_depend_on_the_units_of_objectives():
    rng = np.random.default_rng(0)
    points = rng.random((40, 2))
    plain, scaled = Gains(), Gains()
    for index, (x, y) in enumerate(points.tolist()):
        assert plain.add((index,), (x, y)) == pytest.approx(scaled.add((index,), (1024 * x, y / 64)))
