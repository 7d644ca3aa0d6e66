"""What few images say about all of them, beside scikit-learn's Gaussian process."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from autoprune.core.space import SearchSpace
from autoprune.searchers.partial.correction import NUGGET, REACH, Correction

SPACE = SearchSpace(("a",), ((10, 8, 6, 4, 2, 1),))


def estimates(correction, levels, small):
    return correction.estimate([(level,) for level in levels], np.array(small, dtype=float))


def test_nothing_is_corrected_before_anything_is_known():
    assert estimates(Correction(SPACE), [1, 2], [[0.3, 5.0], [0.2, 4.0]]).tolist() == [[0.3, 5.0], [0.2, 4.0]]


def test_between_networks_that_have_both_it_is_the_gaussian_process_of_scikit_learn():
    removed = 1 - np.array(SPACE.levels[0])[:, None] / 10
    off = np.log([1.5, 0.7, 1.1])
    known, others = [0, 2, 5], [1, 3, 4]
    correction = Correction(SPACE)
    for level, x in zip(known, off, strict=True):
        correction.add((level,), (0.2,), (0.2 * np.exp(x),))
    process = GaussianProcessRegressor(Matern(REACH, "fixed", nu=0.5), alpha=NUGGET, optimizer=None)
    process.fit(removed[known], off - off.mean())
    expected = 0.3 * np.exp(off.mean() + process.predict(removed[others]))
    assert estimates(correction, others, [[0.3]] * 3)[:, 0] == pytest.approx(expected)


def test_a_common_factor_and_exact_costs_come_out_exactly():
    correction = Correction(SPACE)
    for level in (1, 4):
        correction.add((level,), (0.1 * level, 7.0 - level), (0.3 * level, 7.0 - level))
    assert estimates(correction, [2], [[0.2, 5.0]])[0] == pytest.approx([0.6, 5.0])


def test_losses_below_zero_are_off_by_a_difference():
    correction = Correction(SPACE)  # accuracies, to be maximised
    correction.add((1,), (-0.9,), (-0.8,))
    assert estimates(correction, [1], [[-0.85]])[0] == pytest.approx([-0.75], abs=1e-3)


def test_a_loss_of_nothing_stays_nothing_and_teaches_nothing():
    correction = Correction(SPACE)
    correction.add((0,), (0.0,), (0.0,))
    assert estimates(correction, [1], [[0.4]]).tolist() == [[0.4]]
    correction.add((1,), (0.1,), (0.2,))
    assert estimates(correction, [0, 2], [[0.0], [0.4]])[:, 0] == pytest.approx([0.0, 0.8])


def test_the_same_network_twice_is_no_singular_matrix():
    correction = Correction(SPACE)
    correction.add((3,), (0.1,), (0.2,))
    correction.add((3,), (0.1,), (0.3,))
    assert np.isfinite(estimates(correction, [3], [[0.1]])).all()
