"""Estimates full scores from scores on few examples.

A few examples make up much of a score, so on a small part of the selection set every network's score is off, and
similar networks are off alike. The networks that were measured on everything correct the others: a full score is the
small one plus a Gaussian process (Kennedy and O'Hagan, Biometrika 87, 2000, https://doi.org/10.1093/biomet/87.1.1,
equation 1), interpolated between the networks that have both scores. We take the small score's factor as 1, logarithms
of losses that are above 0, whose deviation is a factor, and a fixed length scale of the process instead of a fitted
one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.core.space import Levels, SearchSpace

REACH = 0.2  # length scale: mean difference of removed shares at which the correlation is 1/e
NUGGET = 1e-3  # share of the variance added to the diagonal, for nearly equal networks
SMALLEST_LOSS = 1e-300  # stands for 0 in a logarithm


class Correction:
    """Estimates full losses, from the networks that were scored both on a part and on everything.

    >>> correction.add(levels, small, full)     # (m,) losses of a network that has both
    >>> correction.estimate(rows, small)        # (n, m) full losses of other networks, from their (n, m) losses on the
        part
    """

    def __init__(self, space: SearchSpace) -> None:
        self._removed = [1 - shares for shares in space.shares]
        self._places = np.empty((0, len(self._removed)))
        self._pairs: list[tuple[Sequence[float], Sequence[float]]] = []

    def add(self, levels: Levels, small: Sequence[float], full: Sequence[float]) -> None:
        if not np.all([small, full]):
            return  # a loss of 0, the dense network's, has no factor
        self._places = np.concatenate([self._places, self._placed([levels])])
        self._pairs.append((small, full))
        both = np.array(self._pairs)  # (k, 2, m)
        self._logarithmic = (both > 0).all(axis=(0, 1))
        off = np.diff(self._scaled(both), axis=1)[:, 0]
        self._mean = off.mean(axis=0)
        covariance = _alike(self._places, self._places) + NUGGET * np.eye(len(off))
        self._weights = np.linalg.solve(covariance, off - self._mean)

    def estimate(self, rows: Sequence[Levels], small: np.ndarray) -> np.ndarray:
        """(n, m) estimated full losses of n networks; the small losses unchanged while no network has both."""
        if not self._pairs:
            return small
        off = self._mean + _alike(self._placed(rows), self._places) @ self._weights
        scaled = self._scaled(small) + off
        return np.where(self._logarithmic, np.exp(np.where(self._logarithmic, scaled, 0.0)), scaled)

    def _scaled(self, losses: np.ndarray) -> np.ndarray:
        """Losses, as logarithms for the objectives that are above 0 in all networks with both scores."""
        return np.where(self._logarithmic, np.log(np.maximum(losses, SMALLEST_LOSS)), losses)

    def _placed(self, rows: Sequence[Levels]) -> np.ndarray:
        """(n, u) shares removed from each unit."""
        columns = [
            removed[list(levels)] for removed, levels in zip(self._removed, zip(*rows, strict=True), strict=True)
        ]
        return np.stack(columns, axis=1)


def _alike(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n, k) correlations between the deviations of (n, u) and (k, u) networks."""
    distance = np.zeros((len(ones), len(others)))
    for one, other in zip(ones.T, others.T, strict=True):
        distance += np.abs(one[:, None] - other[None])
    return np.asarray(np.exp(-distance / (REACH * ones.shape[1])))
