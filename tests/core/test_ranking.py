"""Kendall's tau against counting by hand and scipy."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau

from autoprune.core.statistics import kendall_tau


def test_kendall_tau_is_five_concordant_minus_one_discordant_of_six_pairs() -> None:
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)


def test_kendall_tau_leaves_ties_out_of_either_count() -> None:
    # of three pairs one is tied in x: two concordant over sqrt(2 * 3)
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_kendall_tau_agrees_with_scipy_with_many_and_few_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for n in (2, 3, 10, 60):
        x, y = rng.integers(levels, size=(2, n)).astype(float).tolist()
        assert kendall_tau(x, y) == pytest.approx(kendalltau(x, y).statistic, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("x", [[], [1.0], [2.0, 2.0, 2.0]])
def test_kendall_tau_is_nan_without_an_order(x: list[float]) -> None:
    assert math.isnan(kendall_tau(x, list(range(len(x)))))


def test_kendall_tau_refuses_nan() -> None:
    with pytest.raises(ValueError, match="expected finite values"):
        kendall_tau([1.0, math.nan], [1.0, 2.0])
