from __future__ import annotations

import numpy as np
import pytest

from autoprune.core.problem import Profile
from autoprune.errors import ConfigError


def test_only_magnitudes_and_shape_must_be_there():
    profile = Profile(np.array([1.0, 0.0]), (2, 3, 3, 3))
    assert profile.fluctuation is None
    assert profile.outlier_share is None


@pytest.mark.parametrize("values", [[1.0, -1.0], [1.0, np.nan], [np.inf, 1.0]])
def test_numbers_that_are_negative_or_not_finite_are_errors(values):
    with pytest.raises(ConfigError, match="expected magnitudes of a profile as"):
        Profile(np.array(values), (2, 3))
    with pytest.raises(ConfigError, match="expected fluctuation of a profile as"):
        Profile(np.array([1.0, 1.0]), (2, 3), fluctuation=np.array(values))


def test_measurements_of_another_number_of_positions_are_an_error():
    with pytest.raises(ConfigError, match=r"got shape \(3,\) for 2 magnitudes"):
        Profile(np.ones(2), (2, 3), fluctuation=np.ones(3))


def test_an_outlier_share_beyond_1_is_an_error():
    with pytest.raises(ConfigError, match=r"expected the outlier share of a profile from 0 to 1, got 1.5"):
        Profile(np.ones(2), (2, 3), outlier_share=1.5)
