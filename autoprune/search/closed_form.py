"""Rules that give each unit its share at once, without an evaluation: baselines, and seeds for a search.

Pure functions of arrays. Those that rank all positions together return (u,) counts that sum up to what was asked for;
the others return (u,) kept shares from 0 to 1. Ranks of equals: the first unit, then the first position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.errors import ConfigError

Arrays = Sequence[np.ndarray]  # one (n,) array for each unit


def uniform(units: int, share: float) -> np.ndarray:
    """(u,) the same share everywhere."""
    return np.full(units, _share(share))


def erk(shapes: Sequence[Sequence[int]], share: float) -> np.ndarray:
    """(u,) kept shares of weights of the given shapes, (out, in, ...kernel), that keep `share` of all weights.

    Erdos-Renyi-Kernel (Evci et al., Rigging the Lottery, ICML 2020, https://arxiv.org/abs/1911.11134, section 3): what
    a weight keeps is proportional to the sum of its dimensions. A weight that would keep more than it has is left
    dense, the one farthest above first, and the others share what is left.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], dtype=float)
    sums = np.array([sum(shape) for shape in shapes], dtype=float)
    total = _share(share) * sizes.sum()
    dense = np.zeros(len(sizes), dtype=bool)
    while not dense.all():
        kept = np.where(dense, sizes, sums * (total - sizes[dense].sum()) / sums[~dense].sum())
        over = np.where(dense, 0.0, kept / sizes)
        if over.max() <= 1:
            return np.asarray(kept / sizes)
        dense[over.argmax()] = True
    return np.ones(len(sizes))


def global_magnitude(magnitudes: Arrays, keep: int) -> np.ndarray:
    """(u,) counts of the `keep` largest positions of all units together. May leave nothing of a unit."""
    return survivors(magnitudes, keep)


def lamp(magnitudes: Arrays, keep: int) -> np.ndarray:
    """(u,) counts of the `keep` positions of the largest `lamp_scores`; at least one of each unit if keep >= u."""
    return survivors([lamp_scores(squares) for squares in magnitudes], keep)


def lamp_scores(squares: np.ndarray) -> np.ndarray:
    """(n,) squared magnitudes over the sum of all that are not smaller: the largest scores 1.

    Lee et al., Layer-adaptive sparsity for the magnitude-based pruning, ICLR 2021, https://arxiv.org/abs/2010.07611.
    Of equal magnitudes the last counts as the largest, so that one alone scores 1, in a unit of zeros too. Departure:
    the sums run from the largest down; the authors' code takes a running sum from the total, which cancels to zero or
    below for the largest.
    """
    order = np.argsort(squares, kind="stable")[::-1]  # from the largest, and of equals from the last
    falling = np.asarray(squares, dtype=float)[order]
    sums = np.cumsum(falling)
    scores = np.empty(len(order))
    scores[order] = np.divide(falling, sums, out=np.zeros(len(order)), where=sums > 0)
    scores[order[:1]] = 1.0
    return scores


def flap(magnitudes: Arrays, fluctuations: Arrays, keep: int) -> np.ndarray:
    """(u,) counts of the `keep` largest positions by fluctuation times squared norm, standardised within each unit.

    An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models, AAAI 2024,
    https://arxiv.org/abs/2312.11983. A unit of equal scores has them all at 0. Departure: no kind of
    unit gets a weight of its own in the ranking.
    """
    scores = (m * f for m, f in zip(magnitudes, fluctuations, strict=True))
    return survivors([_standardised(score) for score in scores], keep)


def _standardised(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    # a constant array's deviation is its rounding: dividing by that would rank noise
    centred = values - values.mean()
    return np.asarray(centred / deviation if deviation > 1e-12 * np.abs(values).max(initial=0.0) else 0.0 * values)


def owl(outlier_shares: np.ndarray, share: float, spread: float = 0.08) -> np.ndarray:
    """(u,) kept shares with mean `share` that rise with (u,) outlier shares, over a range of twice the spread.

    Yin et al., Outlier Weighed Layerwise Sparsity, ICML 2024, https://arxiv.org/abs/2310.05175. Units that
    are all alike get the same share. Departure: what would leave 0 to 1 is clipped and the others moved together, so
    that the mean holds.
    """
    _share(share)
    outliers = np.asarray(outlier_shares, dtype=float)
    width = np.ptp(outliers)
    raised = 2 * spread * (outliers - outliers.min()) / width if width > 0 else np.zeros(len(outliers))
    ends = np.sort(np.concatenate([-raised, 1 - raised]))  # of what is added; linear between them
    means = np.clip(raised + ends[:, None], 0, 1).mean(axis=1)
    return np.asarray(np.clip(raised + np.interp(share, means, ends), 0, 1))


def sap(
    magnitudes: Arrays, gamma: float, *, eta: float = 0.0, most: float = 0.9, p: float = 0.5, q: float = 1.0
) -> np.ndarray:
    """(u,) kept shares: 1 - min(gamma * (1 - bound / n), most), with the bound of `retained` on each unit's norms.

    Diao et al., Pruning Deep Neural Networks from a Sparsity Perspective, ICLR 2023, https://arxiv.org/abs/2302.05601.
    The norms of positions stand where the paper has single weights.
    """
    if not gamma >= 0:
        raise ConfigError(f"expected gamma of 0 or more, got {gamma}")
    bounds = [retained(np.sqrt(squares), eta=eta, p=p, q=q) / len(squares) for squares in magnitudes]
    return np.array([1 - min(gamma * max(1 - bound, 0.0), most) for bound in bounds])


def pq_index(weights: np.ndarray, *, p: float = 0.5, q: float = 1.0) -> float:
    """Sparsity of (n,) weights from 0, all of one magnitude, to 1 - n^(1/q - 1/p), one not 0; 0 < p < q. 0 for zeros.

    Diao et al. 2023 (see `sap`).
    """
    if not 0 < p < q:
        raise ConfigError(f"expected 0 < p < q, got p = {p} and q = {q}")
    sizes = np.abs(np.asarray(weights, dtype=float))
    if not sizes.any():
        return 0.0
    sizes = sizes / sizes.max()  # powers of very small or large numbers would vanish or overflow
    norms = [float((sizes**power).sum() ** (1 / power)) for power in (p, q)]
    return float(1 - len(sizes) ** (1 / q - 1 / p) * norms[0] / norms[1])


def retained(weights: np.ndarray, *, eta: float = 0.0, p: float = 0.5, q: float = 1.0) -> float:
    """How many of (n,) weights must stay, by their PQ index (Diao et al. 2023); more pruned for eta > 0."""
    index = pq_index(weights, p=p, q=q)
    return float(len(weights) * (1 + eta) ** (q / (p - q)) * (1 - index) ** (q * p / (q - p)))


def survivors(scores: Arrays, keep: int) -> np.ndarray:
    """(u,) how many of each unit are among the `keep` highest scores of all, exactly `keep` in total."""
    lengths = [len(values) for values in scores]
    if not 0 <= keep <= sum(lengths):
        raise ConfigError(f"expected to keep from 0 to {sum(lengths)} positions, got {keep}")
    ranked = np.argsort(-np.concatenate(scores), kind="stable")[:keep]
    return np.bincount(np.repeat(np.arange(len(lengths)), lengths)[ranked], minlength=len(lengths))


def _share(share: float) -> float:
    if not 0 <= share <= 1:
        raise ConfigError(f"expected a kept share from 0 to 1, got {share}")
    return share
