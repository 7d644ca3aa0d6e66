"""Predicts the losses of unmeasured networks from measured ones, and reports the errors of predictions."""

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

PredictorKind = Literal["ridge", "boosting"]
Predict = Callable[[np.ndarray], np.ndarray]  # (n, u) levels to (n,) losses

STRENGTHS = np.logspace(-3, 3, 13)  # strengths of the ridge to choose from by cross-validation
LEAF = 5  # least number of networks in a leaf of a tree


@dataclass(frozen=True)
class Misses:
    """Errors of predictions against later measurements, in the unit of the loss.

    Attributes:
        mae: the mean absolute error.
        rmse: the root mean squared error.
        tau: Kendall's tau-b between predicted and measured order; NaN if either is constant.
    """

    mae: float
    rmse: float
    tau: float

    @staticmethod
    def of(predicted: Sequence[float], measured: Sequence[float]) -> Misses:
        """The errors of (n,) predicted against (n,) measured losses, n of at least 1."""
        off = np.subtract(predicted, measured)
        return Misses(float(np.abs(off).mean()), math.sqrt(float((off**2).mean())), kendall_tau(predicted, measured))

    def __str__(self) -> str:
        return f"mean error {self.mae:.3g}, root mean square {self.rmse:.3g}, Kendall's tau {self.tau:.2f}"


class Predictor:
    """Fits one regressor to measured networks.

    Args:
        space: the space of the networks.
        kind: "ridge", scikit-learn's ridge regression on one-hot levels, its strength chosen by leave-one-out errors:
            an additive model of single levels. Or "boosting", scikit-learn's histogram gradient boosting on kept
            shares, which models interactions and needs more networks.

    Raises:
        ConfigError: the kind is unknown, or scikit-learn is not installed.
    """

    def __init__(self, space: SearchSpace, kind: PredictorKind) -> None:
        if kind not in get_args(PredictorKind):
            raise ConfigError(f"expected predictor to be one of {list(get_args(PredictorKind))}, got {kind!r}")
        _sklearn()
        self._space, self._kind = space, kind

    def fit(self, levels: np.ndarray, losses: np.ndarray, seed: int) -> Predict:
        """A function from (n, u) levels to predictions, learned from (n, u) levels and their (n,) finite losses.

        n must be at least 2.
        """
        model = self._regressor(seed).fit(self._features(levels), losses)
        if self._kind == "ridge":  # the class's own predict validates its input, which takes ten times as long
            return lambda rows: np.asarray(self._features(rows) @ model.coef_ + model.intercept_)
        return lambda rows: np.asarray(model.predict(self._features(rows)), dtype=float)

    def _regressor(self, seed: int) -> Any:
        if self._kind == "ridge":
            return _sklearn().linear_model.RidgeCV(STRENGTHS)
        # no early stopping: it would hold out some of the few networks
        return _sklearn().ensemble.HistGradientBoostingRegressor(
            early_stopping=False, min_samples_leaf=LEAF, random_state=seed
        )

    def _features(self, levels: np.ndarray) -> np.ndarray:
        """(n, f) features: one-hot levels of each unit, or the (n, u) kept shares."""
        if self._kind == "boosting":
            return np.asarray(self._space.kept(levels) / self._space.kept(self._space.dense.levels))
        choices = np.arange(self._space.sizes.max())
        one_hot = levels[:, :, None] == choices  # (n, u, l)
        return np.asarray(one_hot[:, choices < self._space.sizes[:, None]], dtype=float, order="C")


def _sklearn() -> Any:
    """Imports scikit-learn; the import draws from the global `random`, whose state is restored."""
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
