"""Losses of networks that were never measured, predicted from those that were; and how far off the predictions are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from autoprune.core.space import SearchSpace
from autoprune.core.statistics import kendall_tau
from autoprune.errors import ConfigError

Kind = Literal["ridge", "boosting"]
Predict = Callable[[np.ndarray], np.ndarray]  # (n, u) levels to (n,) losses

STRENGTHS = np.logspace(-3, 3, 13)  # of the ridge, of which cross-validation takes one
LEAF = 5  # networks in a leaf of a tree at least


@dataclass(frozen=True)
class Misses:
    """How far predictions were from what was measured afterwards, in the unit of the loss.

    `mae` and `rmse` are the mean absolute and the root mean squared difference, `tau` is Kendall's tau-b of the two
    orders, NaN where either is constant.
    """

    mae: float
    rmse: float
    tau: float

    @staticmethod
    def of(predicted: Sequence[float], measured: Sequence[float]) -> Misses:
        """Of (n,) losses each, n of at least 1."""
        off = np.subtract(predicted, measured)
        return Misses(float(np.abs(off).mean()), math.sqrt(float((off**2).mean())), kendall_tau(predicted, measured))

    def __str__(self) -> str:
        return f"mean error {self.mae:.3g}, root mean square {self.rmse:.3g}, Kendall's tau {self.tau:.2f}"


class Predictor:
    """Fits one regressor of a kind to measured networks.

    "ridge" is scikit-learn's ridge regression on one-hot levels, its strength chosen by leave-one-out errors: it adds
    up what single levels do. "boosting" is its histogram gradient boosting on kept shares, which sees interactions and
    needs more networks. Raises ConfigError for another kind, and where scikit-learn is not installed.
    """

    def __init__(self, space: SearchSpace, kind: Kind) -> None:
        if kind not in get_args(Kind):
            raise ConfigError(f"expected predictor to be one of {list(get_args(Kind))}, got {kind!r}")
        _sklearn()
        self._space, self._kind = space, kind

    def fit(self, levels: np.ndarray, losses: np.ndarray, seed: int) -> Predict:
        """What predicts from (n, u) levels, learned from (n, u) levels and (n,) finite losses; n of at least 2."""
        model = self._regressor(seed).fit(self._features(levels), losses)
        if self._kind == "ridge":  # its own predict checks what is known to be sound, in ten times the time
            return lambda rows: np.asarray(self._features(rows) @ model.coef_ + model.intercept_)
        return lambda rows: np.asarray(model.predict(self._features(rows)), dtype=float)

    def _regressor(self, seed: int) -> Any:
        if self._kind == "ridge":
            return _sklearn().linear_model.RidgeCV(STRENGTHS)
        # without early stopping, which would hold some of the few networks back
        return _sklearn().ensemble.HistGradientBoostingRegressor(
            early_stopping=False, min_samples_leaf=LEAF, random_state=seed
        )

    def _features(self, levels: np.ndarray) -> np.ndarray:
        """(n, f) numbers: one for each level of each unit, or the (n, u) kept shares."""
        if self._kind == "boosting":
            return np.asarray(self._space.kept(levels) / self._space.kept(self._space.dense.levels))
        choices = np.arange(self._space.sizes.max())
        one_hot = levels[:, :, None] == choices  # (n, u, l)
        return np.asarray(one_hot[:, choices < self._space.sizes[:, None]], dtype=float, order="C")


def _sklearn() -> Any:
    """The package with what is used of it; the import draws from the global `random`, whose state is put back."""
    state = random.getstate()
    try:
        import sklearn.ensemble
        import sklearn.linear_model
    except ImportError as error:
        raise ConfigError(
            f"the searcher 'surrogate' needs scikit-learn, which cannot be imported: {error}. "
            "Install it with: pip install 'autoprune[surrogate]'"
        ) from error
    finally:
        random.setstate(state)
    return sklearn
