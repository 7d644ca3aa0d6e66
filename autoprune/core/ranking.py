"""How far two measurements order the same things alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b of (n,) x and (n,) y: 1 same order, -1 opposite order, NaN when either is constant or n < 2.

    Kendall 1945, The treatment of ties in ranking problems, https://doi.org/10.1093/biomet/33.3.239: concordant minus
    discordant pairs over the geometric mean of the pairs untied in x and those untied in y. O(n^2), as fronts are
    small. ValueError for values that are not finite or of different number.
    """
    values = np.array([x, y], dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("expected finite values to rank")
    order = np.sign(values[:, :, None] - values[:, None, :])  # (2, n, n), every pair twice
    untied = (order != 0).sum(axis=(1, 2))
    return float((order[0] * order[1]).sum() / math.sqrt(untied.prod())) if untied.all() else math.nan
