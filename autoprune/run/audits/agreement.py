"""How far an order of networks before training foretells their order after training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.statistics import kendall_p, kendall_tau

RESAMPLES = 1000  # bootstrap samples of networks
ENDS = 0.025, 0.975  # the quantiles at the ends of an interval
STRONG, SOME = 0.6, 0.3  # least values of tau for these words
UNSURE = 0.05  # p values above it are those of unrelated orders, as all of three or four networks are
SIGMAS = 2.0  # standard deviations of the seeds' noise that an inversion must exceed


@dataclass(frozen=True)
class Agreement:
    """The agreement of a value before training with a value after it, over networks of one budget.

    Attributes:
        before: the name of the value before training.
        after: the name of the value after training.
        tau: Kendall's tau-b of their losses: 1 for the same order, -1 for the opposite one; None if one is constant.
        low: the lower end of tau's 95 % bootstrap interval over networks.
        high: the upper end.
        p: the p value of tau.
        counterexamples: the share of pairs whose order after training is the opposite, by more than the seeds' noise.
        same_widths: tau over the pairs of networks with the same widths and other positions; None without such pairs.
        verdict: the word for tau: strong, some, none or undefined.
    """

    before: str
    after: str
    tau: float | None
    low: float | None
    high: float | None
    p: float | None
    counterexamples: float
    same_widths: float | None
    verdict: str


def agreement(
    names: tuple[str, str],
    losses: tuple[Sequence[float], Sequence[float]],
    noise: float,
    same_widths: Sequence[tuple[Sequence[float], Sequence[float]]] = (),
) -> Agreement:
    """The agreement of losses before and after training.

    Args:
        names: the names of both values.
        losses: (n,) losses of the networks before and after training.
        noise: the standard deviation of a difference of two networks after training that only the seeds make.
        same_widths: losses before and after of groups of networks that have the same widths.
    """
    before, after = losses
    tau, p = kendall_tau(before, after), kendall_p(before, after)
    low, high = tau_interval(before, after)
    return Agreement(
        *names,
        tau=_defined(tau),
        low=_defined(low),
        high=_defined(high),
        p=_defined(p),
        counterexamples=counterexamples(before, after, SIGMAS * noise),
        same_widths=tau_within(same_widths),
        verdict=verdict(tau, low, high, p),
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def verdict(tau: float, low: float, high: float, p: float) -> str:
    """The word for a tau with its interval and p value."""
    if math.isnan(tau):
        return "undefined"
    if math.isnan(low) or low <= 0 <= high or tau < SOME or p > UNSURE:
        return "none"
    return "strong" if tau > STRONG else "some"


def tau_interval(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """The 95 % percentile interval of Kendall's tau-b of (n,) x and (n,) y, from resamples of the n networks.

    Samples in which tau is undefined are left out; NaN if there are no others.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: the percentile interval.
    """
    counts = _resampled_counts(len(x)).astype(float)  # (samples, n)
    signs = [np.sign(np.subtract.outer(np.asarray(values, float), values)) for values in (x, y)]
    concordant, *untied = (
        ((counts @ pairs) * counts).sum(axis=1) for pairs in (signs[0] * signs[1], *(np.abs(s) for s in signs))
    )
    defined = np.minimum(*untied) > 0
    if not defined.any():
        return math.nan, math.nan
    taus = concordant[defined] / np.sqrt(untied[0][defined] * untied[1][defined])
    low, high = np.quantile(taus, ENDS).tolist()
    return low, high


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean of (n,) values, and the ends of its 95 % percentile interval from resamples of the n networks."""
    given = np.asarray(values, float)
    means = (_resampled_counts(len(given)) @ given) / len(given)
    low, high = np.quantile(means, ENDS).tolist()
    return float(given.mean()), low, high


def counterexamples(before: Sequence[float], after: Sequence[float], margin: float) -> float:
    """The share of all pairs that are ordered one way before and the other way after by more than the margin.

    Source: the counterexamples of Is Oracle Pruning the True Oracle? (https://arxiv.org/abs/2412.00143). Departure: an
    order after training counts only beyond the noise of the seeds.
    """
    first, second = np.triu_indices(len(before), k=1)
    x, y = (np.asarray(values, float)[first] - np.asarray(values, float)[second] for values in (before, after))
    inverted = (np.sign(x) * np.sign(y) < 0) & (np.abs(y) > margin)
    return float(inverted.mean()) if len(inverted) else 0.0


def tau_within(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """Kendall's tau-b over the pairs inside groups; None if there are none, or all of them are ties."""
    signs = [_pair_signs(before, after) for before, after in groups]
    if not signs:
        return None
    x, y = np.concatenate(signs, axis=1)
    untied = float(np.abs(x).sum() * np.abs(y).sum())
    return float((x * y).sum() / math.sqrt(untied)) if untied else None


def seed_noise(values: Sequence[Sequence[float]]) -> float:
    """The standard deviation that the seeds give a difference of two networks' means; 0 with one seed.

    Args:
        values: the values of each network, one for each seed. Their variance is pooled over the networks.
    """
    seeds = len(values[0])
    if seeds < 2:
        return 0.0
    pooled = float(np.mean([np.var(own, ddof=1) for own in values]))
    return math.sqrt(2 * pooled / seeds)


def _pair_signs(before: Sequence[float], after: Sequence[float]) -> np.ndarray:
    """(2, pairs) signs of the differences before and after."""
    first, second = np.triu_indices(len(before), k=1)
    values = np.array([before, after], dtype=float)
    return np.asarray(np.sign(values[:, first] - values[:, second]))


def _resampled_counts(n: int) -> np.ndarray:
    """(samples, n) how often each of n networks is in each bootstrap sample; the same for equal n."""
    drawn = np.random.default_rng(0).integers(0, n, (RESAMPLES, n))
    return np.stack([np.bincount(sample, minlength=n) for sample in drawn])
