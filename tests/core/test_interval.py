from __future__ import annotations

import math

import numpy as np
import pytest

from autoprune.core.statistics import wilson


@pytest.mark.parametrize("count", [1, 7, 400, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9173, 1.0])
def test_the_ends_are_the_shares_that_lie_two_deviations_away(share, count):
    low, high = wilson(share, count, 2.0)
    assert 0 <= low <= share <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(share - end) == pytest.approx(2.0 * math.sqrt(end * (1 - end) / count))


def test_an_interval_of_all_or_none_is_not_empty():
    assert wilson(1.0, 400) == (pytest.approx(1 / (1 + 1.96**2 / 400), abs=1e-5), 1.0)
    assert wilson(0.0, 400)[1] > 0.009


def test_nineteen_of_twenty_intervals_hold_the_true_share():
    counted = np.random.default_rng(0).binomial(400, 0.92, size=4000) / 400
    held = [low <= 0.92 <= high for low, high in (wilson(share, 400) for share in counted)]
    assert 0.94 <= np.mean(held) <= 0.96


@pytest.mark.parametrize(("share", "count"), [(0.5, 0), (-0.1, 4), (1.1, 4), (float("nan"), 4)])
def test_what_is_no_share_is_refused(share, count):
    with pytest.raises(ValueError, match="expected a share from 0 to 1 among one example or more"):
        wilson(share, count)
