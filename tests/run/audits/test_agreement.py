"""Agreements of orders: against scipy, by hand, and on orders that are equal or unrelated."""

import math

import numpy as np
import pytest
from scipy import stats

from autoprune.core.statistics import kendall_p, kendall_tau
from autoprune.run.audits.agreement import (
    agreement,
    counterexamples,
    mean_interval,
    seed_noise,
    tau_interval,
    tau_within,
    verdict,
)
from autoprune.run.audits.results import AuditedNetwork, agreements_of, inherited_of

SIGNS = {"kl": 1.0, "accuracy": -1.0}


@pytest.mark.parametrize("kinds", [2, 6, 10**6])
def test_tau_and_its_p_value_are_those_of_scipy_with_and_without_ties(kinds):
    x, y = np.random.default_rng(kinds).integers(0, kinds, (2, 20))
    expected = stats.kendalltau(x, y, method="asymptotic")
    assert (kendall_tau(x, y), kendall_p(x, y)) == pytest.approx(expected, abs=1e-12)


def test_a_constant_value_has_neither_tau_nor_p_value():
    found = agreement(("kl", "accuracy"), ([1, 1, 1], [1, 2, 3]), 0.0)
    assert (found.tau, found.low, found.p, found.verdict) == (None, None, None, "undefined")
    assert math.isnan(kendall_p([1, 1], [1, 2]))


def test_the_interval_of_unrelated_orders_covers_0_in_about_95_of_100():
    drawn = np.random.default_rng(0).random((200, 2, 20))
    covering = sum(low <= 0 <= high for low, high in (tau_interval(x, y) for x, y in drawn))
    assert 180 <= covering <= 199  # 190 expected, with a standard deviation of 3


def networks(before, after, **more):
    names = map(str, range(len(before)))
    rows = zip(names, before, after, strict=True)
    return [AuditedNetwork(n, "random", "", 0.5, {"kl": b}, {"accuracy": a}, **more) for n, b, a in rows]


def test_an_order_that_training_keeps_has_tau_1():
    """A lower KL before goes with a higher accuracy after."""
    kl = [0.4, 0.1, 0.3, 0.2, 0.6, 0.5, 0.8, 0.7]
    (found,) = agreements_of(networks(kl, [(1 - value, 1 - value) for value in kl]), SIGNS)
    assert (found.tau, found.low, found.high, found.counterexamples, found.verdict) == (1, 1, 1, 0, "strong")


def test_counterexamples_by_hand():
    """Of 6 pairs, (0, 1), (2, 3) and (0, 3) are reversed, by 1, 5 and 2."""
    before, after = [1, 2, 3, 4], [2, 1, 5, 0]
    reversed_by = {(0, 1): 1, (0, 3): 2, (1, 3): 1, (2, 3): 5}
    assert counterexamples(before, after, 0.0) == len(reversed_by) / 6
    assert counterexamples(before, after, 1.0) == 2 / 6
    assert counterexamples(before, after, 2.0) == 1 / 6
    assert counterexamples([1, 1, 1, 1], after, 0.0) == 0


def test_the_noise_of_a_difference_of_means_follows_from_the_seeds():
    values = np.random.default_rng(0).normal(0, 0.3, (4000, 4))
    differences = values[::2].mean(axis=1) - values[1::2].mean(axis=1)
    assert seed_noise(values) == pytest.approx(differences.std(), rel=0.05)
    assert seed_noise([[1.0], [2.0]]) == 0


def test_the_margin_is_twice_the_noise_of_the_seeds():
    """Each network's seeds are 0.2 apart: a variance of 0.02, so means of two differ by 0.141 from noise alone."""
    pairs = [(0.5, 0.7), (0.6, 0.8), (0.9, 1.1)]  # means 0.6, 0.7 and 1.0
    (found,) = agreements_of(networks([1.0, 2.0, 3.0], pairs), SIGNS)
    assert found.counterexamples == 2 / 3  # by 0.1, 0.4 and 0.3, of which the first is within 0.283


def test_networks_of_the_same_widths_are_compared_among_themselves():
    given = networks([1.0, 2.0, 3.0], [(0.9,), (0.8,), (0.7,)])
    given.append(AuditedNetwork("0", "order", "l1", 0.5, {"kl": 1.5}, {"accuracy": (0.95,)}))
    given.append(AuditedNetwork("2", "order", "l1", 0.5, {"kl": 3.5}, {"accuracy": (0.6,)}))
    (found,) = agreements_of(given, SIGNS)
    assert (found.tau, found.same_widths) == (1, 0)  # one pair is reversed, one is not
    assert tau_within([]) is None


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ((0.7, 0.5, 0.9, 0.001), "strong"),
        ((0.5, 0.2, 0.7, 0.02), "some"),
        ((0.2, 0.1, 0.3, 0.04), "none"),
        ((0.7, -0.1, 1.0, 0.04), "none"),
        ((1.0, 1.0, 1.0, 0.117), "none"),
        ((-0.8, -0.9, -0.6, 0.001), "none"),
    ],
)
def test_the_verdict_in_words(values, word):
    assert verdict(*values) == word


def test_the_mean_of_a_sample_has_the_interval_of_its_standard_error():
    values = np.random.default_rng(0).normal(2, 1, 100)
    mean, low, high = mean_interval(values)
    error = values.std(ddof=1) / 10
    assert mean == values.mean()
    assert (mean - low, high - mean) == pytest.approx((1.96 * error, 1.96 * error), rel=0.1)


def test_what_own_weights_are_worth_is_a_paired_difference():
    given = networks([1.0, 2.0, 3.0], [(0.9, 0.8), (0.7, 0.6), (0.5, 0.4)], scratch_e={"accuracy": (0.3, 0.3)})
    (found,) = inherited_of(given, SIGNS)
    assert (found.budget, found.gain) == ("equal steps", pytest.approx(0.35))
    assert found.low == pytest.approx(0.15)
    assert found.high == pytest.approx(0.55)
    assert found.sentence.startswith("Own weights are worth more than new random ones, with equal steps: accuracy")
