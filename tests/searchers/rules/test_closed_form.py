"""The closed-form rules against published numbers and arithmetic by hand, and where the originals break."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.errors import ConfigError
from autoprune.searchers.rules.closed_form import (
    erk,
    flap_counts,
    global_magnitude,
    incremental,
    lamp_counts,
    lamp_scores,
    owl,
    pq_sparsity,
    retained,
    sap,
    uniform,
)

A, B, C = (np.array(w) ** 2 for w in ([0.1, -0.2, 0.3, 0.4, -0.5], [1.0, 2.0, 3.0], [0.01, 0.02]))
SHAPES = [(16, 3, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3), (10, 64)]
SIZES = np.array([432, 4608, 18432, 640])


def test_uniform_keeps_the_same_share_everywhere():
    assert uniform(3, 0.4).tolist() == [0.4, 0.4, 0.4]


@pytest.mark.parametrize(("share", "kept"), [(0.1, [245, 528, 998, 640]), (0.3, [432, 2133, 4029, 640])])
def test_erk_keeps_the_published_counts(share, kept):
    assert np.rint(erk(SHAPES, share) * SIZES).tolist() == kept


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999, 1.0])
def test_erk_keeps_the_share_of_all_weights_and_never_more_than_there_are(share):
    kept = erk(SHAPES, share)
    assert kept.max() <= 1
    assert kept @ SIZES == pytest.approx(share * SIZES.sum())


def test_lamp_has_the_published_scores():
    assert lamp_scores(A) == pytest.approx([0.018182, 0.074074, 0.18, 0.390244, 1], abs=5e-7)
    assert lamp_scores(C) == pytest.approx([0.2, 1])


@pytest.mark.parametrize(
    ("keep", "by_lamp", "by_magnitude"),
    [(3, [1, 1, 1], [0, 3, 0]), (5, [2, 2, 1], [2, 3, 0]), (7, [3, 2, 2], [4, 3, 0])],
)
def test_lamp_keeps_some_of_every_layer_where_global_magnitude_empties_one(keep, by_lamp, by_magnitude):
    assert lamp_counts([A, B, C], keep).tolist() == by_lamp
    assert global_magnitude([A, B, C], keep).tolist() == by_magnitude


def test_lamp_scores_do_not_cancel_where_magnitudes_span_many_orders():
    scores = lamp_scores(np.array([1e-30, 1e-20, 1.0, 1e20]))
    assert scores == pytest.approx([1e-50, 1e-40, 1e-20, 1], rel=1e-12)


def test_lamp_of_a_layer_of_zeros_and_of_a_constant_one_keeps_one_position():
    assert lamp_scores(np.zeros(3)).tolist() == [0, 0, 1]
    assert lamp_scores(np.full(4, 7.0)) == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])
    assert lamp_counts([np.zeros(3), np.full(4, 7.0)], 2).tolist() == [1, 1]


@pytest.mark.parametrize("keep", range(11))
def test_exactly_as_many_are_kept_where_all_are_equal(keep):
    for rule in (lamp_counts, global_magnitude):
        kept = rule([np.ones(5), np.ones(3), np.ones(2)], keep)
        assert kept.sum() == keep


def test_more_than_there_are_cannot_be_kept():
    with pytest.raises(ConfigError, match="expected to keep from 0 to 3 positions, got 4"):
        global_magnitude([np.ones(3)], 4)


def test_owl_raises_what_has_more_outliers_about_the_mean():
    """Shares of 0, 1/2 and 1 of the range: 0, 0.08 and 0.16 above the least, whose mean is 0.08."""
    assert owl(np.array([0.1, 0.2, 0.3]), 0.5) == pytest.approx([0.42, 0.5, 0.58])


def test_owl_of_units_that_are_all_alike_is_uniform():
    assert owl(np.full(4, 0.02), 0.3) == pytest.approx(np.full(4, 0.3))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.05, 0.5, 0.97, 1.0])
def test_owl_stays_within_0_and_1_and_keeps_the_mean(share):
    kept = owl(np.array([0.0, 0.0, 0.1, 0.9]), share, spread=0.3)
    assert ((kept >= 0) & (kept <= 1)).all()
    assert kept.mean() == pytest.approx(share)


def test_flap_ranks_scores_standardised_in_each_unit():
    """(1, 2, 3) and (10, 20, 90) have the same first two ranks only by their own mean and deviation.

    Standardised: -1.22, 0, 1.22 and -0.84, -0.56, 1.40.
    """
    magnitudes, fluctuations = [np.array([1.0, 2, 3]), np.array([1.0, 2, 9])], [np.ones(3), np.full(3, 10.0)]
    found = [flap_counts(magnitudes, fluctuations, keep).tolist() for keep in range(7)]
    assert found == [[0, 0], [0, 1], [1, 1], [2, 1], [2, 2], [2, 3], [3, 3]]


def test_flap_of_a_constant_unit_scores_it_at_0():
    found = flap_counts([np.full(3, 0.1), np.array([1.0, 5.0])], [np.ones(3), np.ones(2)], 4)
    assert found.tolist() == [3, 1]


def test_the_pq_index_has_the_published_values():
    ones, one_hot, rising = np.ones(4), np.array([0, 0, 3.0, 0]), np.array([1.0, 2, 3, 4])
    for p, q, expected in ((0.5, 1.0, 0.75), (1.0, 2.0, 0.5)):
        assert pq_sparsity(ones, p=p, q=q) == pytest.approx(0, abs=1e-12)
        assert pq_sparsity(one_hot, p=p, q=q) == pytest.approx(expected)
    assert pq_sparsity(rising) == pytest.approx(0.0555859, abs=5e-8)
    assert pq_sparsity(rising, p=1, q=2) == pytest.approx(0.0871291, abs=5e-8)


def test_the_retained_bound_has_the_published_values():
    rising = np.array([1.0, 2, 3, 4])
    assert retained(rising) == pytest.approx(3.777657, abs=5e-7)
    assert retained(rising, p=1, q=2) == pytest.approx(3.333333, abs=5e-7)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_the_pq_index_does_not_depend_on_the_scale(scale):
    assert pq_sparsity(scale * np.array([1.0, 2, 3, 4]), p=1, q=2) == pytest.approx(0.0871291, abs=5e-8)


def test_sap_prunes_sparser_units_more_and_zeros_not_at_all():
    units = [np.ones(4), np.array([1.0, 2, 3, 4]) ** 2, np.array([0, 0, 9.0, 0]), np.zeros(4)]
    assert sap(units, 1.0) == pytest.approx([1, 3.777657 / 4, 0.25, 1])
    assert sap(units, 9.0) == pytest.approx([1, 1 - 9 * (1 - 3.777657 / 4), 0.1, 1], abs=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform(2, 1.2), "expected a kept share from 0 to 1, got 1.2"),
        (lambda: erk(SHAPES, -0.1), "expected a kept share from 0 to 1, got -0.1"),
        (lambda: owl(np.ones(2), float("nan")), "expected a kept share from 0 to 1, got nan"),
        (lambda: sap([np.ones(2)], -1.0), "expected gamma of 0 or more, got -1.0"),
        (lambda: pq_sparsity(np.ones(2), p=2, q=1), "expected 0 < p < q, got p = 2 and q = 1"),
    ],
)
def test_arguments_out_of_range_are_errors(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    "rule",
    [
        lambda share: uniform(3, share),
        lambda share: erk(SHAPES, share),
        lambda share: owl(np.array([0.0, 0.0, 0.1, 0.9]), share, spread=0.3),
        lambda share: sap([A, B, C], 3 * share),
        lambda share: lamp_counts(
            [A, B, C], (10 * share).astype(int) if isinstance(share, np.ndarray) else int(10 * share)
        ),
    ],
)
def test_many_shares_at_once_are_those_one_by_one(rule):
    shares = np.array([0.0, 0.125, 0.5, 0.875, 1.0])
    assert rule(shares).tolist() == [rule(share).tolist() for share in shares.tolist()]


def test_incremental_shares_rise_with_the_logarithm_of_the_block():
    """Four blocks, the second of two units: log(2) / log(4) is a half."""
    blocks = np.array([0, 1, 1, 3])
    assert incremental(blocks, 1.0).tolist() == [1, 1, 1, 1]
    assert incremental(blocks, 0.75).tolist() == pytest.approx([1, 0.75, 0.75, 0.5])
    assert incremental(blocks, 0.25).tolist() == pytest.approx([0.5, 0.25, 0.25, 0])
    assert incremental(np.array([0, 0]), 0.3).tolist() == pytest.approx([0.3, 0.3])
