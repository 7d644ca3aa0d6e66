"""Statistics of measurements: confidence intervals for shares, and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

SURE = 1.959963984540054  # standard deviations of a 95 % confidence interval


def wilson(share: float, count: int, deviations: float = SURE) -> tuple[float, float]:
    """The Wilson confidence interval of a share observed among `count` examples, both ends in [0, 1].

    Stays within 0 and 1, and is not empty for a share of 0 or 1. For a mean of values between 0 and 1, which varies at
    most as much as a share, the interval is too wide rather than too narrow.

    Source: Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927,
    https://doi.org/10.1080/01621459.1927.10502953.

    Raises:
        ValueError: no example, or a share outside 0 to 1.
    """
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1 among one example or more, got {share} among {count}")
    weight = deviations**2 / count
    center = (share + weight / 2) / (1 + weight)
    reach = deviations / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
    return (center - reach if share > 0 else 0.0), (center + reach if share < 1 else 1.0)  # exact at both ends


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b of (n,) x and (n,) y: 1 same order, -1 opposite order, NaN when either is constant or n < 2.

    Concordant minus discordant pairs over the geometric mean of the pairs untied in x and those untied in y. O(n^2), as
    fronts are small.

    Source: Kendall, The treatment of ties in ranking problems, Biometrika 33, 1945,
    https://doi.org/10.1093/biomet/33.3.239.

    Raises:
        ValueError: the values are not finite, or x and y differ in length.
    """
    values = np.array([x, y], dtype=float)
    if not np.isfinite(values).all():
        raise ValueError("expected finite values to rank")
    order = np.sign(values[:, :, None] - values[:, None, :])  # (2, n, n), every pair twice
    untied = (order != 0).sum(axis=(1, 2))
    return float((order[0] * order[1]).sum() / math.sqrt(untied.prod())) if untied.all() else math.nan


def kendall_p(x: Sequence[float], y: Sequence[float]) -> float:
    """The two-sided p value of `kendall_tau`: how likely one as far from 0 is if x and y are unrelated; NaN like tau.

    It is that of the normal approximation with the variance for ties.

    Source: Kendall, Rank Correlation Methods, 1970, section 4.10, as in scipy.stats.kendalltau(method="asymptotic").
    """
    tau, n = kendall_tau(x, y), len(x)
    if math.isnan(tau):
        return math.nan
    ties = [np.unique(values, return_counts=True)[1].astype(float) for values in (x, y)]
    pairs, ordered = n * (n - 1) / 2, n * (n - 1.0)
    tied = [float((t * (t - 1)).sum()) / 2 for t in ties]
    triples = math.prod(float((t * (t - 1) * (t - 2)).sum()) for t in ties)
    fives = sum(float((t * (t - 1) * (2 * t + 5)).sum()) for t in ties)
    variance = (ordered * (2 * n + 5) - fives) / 18 + 2 * math.prod(tied) / ordered
    variance += triples / (9 * ordered * (n - 2)) if n > 2 else 0.0
    score = tau * math.sqrt(math.prod(pairs - own for own in tied))
    return math.erfc(abs(score) / math.sqrt(2 * variance))


def paired_difference(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """The 95 % confidence interval of the difference of two shares that are observed on the same examples.

    It joins the Wilson intervals of both shares and allows for the correlation between them.

    Source: Newcombe, Improved confidence intervals for the difference between binomial proportions based on paired
    data, Statistics in Medicine 17, 1998, method 10,
    https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22%3C2635::AID-SIM954%3E3.0.CO;2-C.

    Args:
        both: the number of examples that are counted in both shares.
        first: the number that only the first share counts.
        second: the number that only the second share counts.
        neither: the number that neither counts.

    Returns:
        The ends of the interval of the first share minus the second.

    Raises:
        ValueError: there is no example.
    """
    count = both + first + second + neither
    one, other = ((both + only) / max(count, 1) for only in (first, second))
    (low, high), (other_low, other_high) = wilson(one, count), wilson(other, count)
    phi = _phi(both, first, second, neither)
    down, up = one - low, high - one
    other_down, other_up = other - other_low, other_high - other
    below = down**2 - 2 * phi * down * other_up + other_up**2
    above = up**2 - 2 * phi * up * other_down + other_down**2
    return one - other - math.sqrt(max(below, 0.0)), one - other + math.sqrt(max(above, 0.0))


def _phi(both: int, first: int, second: int, neither: int) -> float:
    """The correlation of two paired shares, corrected for continuity; 0 if one of them is 0 or 1."""
    sides = (both + first) * (second + neither) * (both + second) * (first + neither)
    excess, half = float(both * neither - first * second), (both + first + second + neither) / 2
    corrected = max(excess - half, 0.0) if excess > 0 else excess
    return corrected / math.sqrt(sides) if sides else 0.0
