"""Closed-form rules that give each unit its share without an evaluation: baselines, and seeds for a search.

Pure functions of arrays. Rules that rank all positions together return (u,) counts with the requested sum; the others
return (u,) kept shares from 0 to 1. Given (d,) shares or counts in place of one, they return (d, u). Ties: the first
unit, then the first position.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.errors import ConfigError

UnitArrays = Sequence[np.ndarray]  # one (n,) array for each unit
KeptShare = float | np.ndarray
Keep = int | np.ndarray


def uniform(units: int, share: KeptShare) -> np.ndarray:
    """(u,) the same share everywhere."""
    return np.repeat(_share(share)[..., None], units, axis=-1)


def erk(shapes: Sequence[Sequence[int]], share: KeptShare) -> np.ndarray:
    """(u,) kept shares of weights of the given shapes, (out, in, ...kernel), that keep `share` of all weights.

    Erdos-Renyi-Kernel (Evci et al., Rigging the Lottery, ICML 2020, https://arxiv.org/abs/1911.11134, section 3): the
    number of weights that a layer keeps is proportional to the sum of its dimensions. A layer that would keep more than
    it has is left dense, the one farthest above first, and the others share the remainder.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], dtype=float)
    sums = np.array([sum(shape) for shape in shapes], dtype=float)
    total = _share(share)[..., None] * sizes.sum()
    dense = np.zeros((*total.shape[:-1], len(sizes)), dtype=bool)
    while True:
        left = total - np.where(dense, sizes, 0.0).sum(axis=-1, keepdims=True)
        shared = np.where(dense, 0.0, sums).sum(axis=-1, keepdims=True)
        over = np.where(dense, 0.0, sums * left / np.maximum(shared, 1.0) / sizes)  # where all are dense shared is 0
        farthest = np.arange(len(sizes)) == over.argmax(axis=-1)[..., None]
        full = farthest & (over > 1)
        if not full.any():
            return np.where(dense, 1.0, over)
        dense |= full


def global_magnitude(magnitudes: UnitArrays, keep: Keep) -> np.ndarray:
    """(u,) counts of the `keep` largest positions of all units together; a unit may be left empty."""
    return survivors(magnitudes, keep)


def lamp_counts(magnitudes: UnitArrays, keep: Keep) -> np.ndarray:
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


def flap_counts(magnitudes: UnitArrays, fluctuations: UnitArrays, keep: Keep) -> np.ndarray:
    """(u,) counts of the `keep` largest positions by fluctuation times squared norm, standardised within each unit.

    An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models, AAAI 2024,
    https://arxiv.org/abs/2312.11983. In a unit of equal scores all are 0. Departure: no kind of unit gets a weight of
    its own in the ranking.
    """
    scores = (m * f for m, f in zip(magnitudes, fluctuations, strict=True))
    return survivors([_standardised(score) for score in scores], keep)


def _standardised(values: np.ndarray) -> np.ndarray:
    deviation = values.std()
    # a constant array's deviation is rounding error: dividing by it would rank noise
    centred = values - values.mean()
    return np.asarray(centred / deviation if deviation > 1e-12 * np.abs(values).max(initial=0.0) else 0.0 * values)


def owl(outlier_shares: np.ndarray, share: KeptShare, spread: float = 0.08) -> np.ndarray:
    """(u,) kept shares with mean `share` that rise with (u,) outlier shares, over a range of twice the spread.

    Yin et al., Outlier Weighed Layerwise Sparsity, ICML 2024, https://arxiv.org/abs/2310.05175. Equal units get the
    same share. Departure: shares outside 0 to 1 are clipped and the others shifted together, so that the mean holds.
    """
    wanted = _share(share)[..., None]
    outliers = np.asarray(outlier_shares, dtype=float)
    width = np.ptp(outliers)
    raised = 2 * spread * (outliers - outliers.min()) / width if width > 0 else np.zeros(len(outliers))
    ends = np.sort(np.concatenate([-raised, 1 - raised]))  # of what is added; linear between them
    means = np.clip(raised + ends[:, None], 0, 1).mean(axis=1)
    return np.asarray(np.clip(raised + np.interp(wanted, means, ends), 0, 1))


def incremental(blocks: np.ndarray, share: KeptShare) -> np.ndarray:
    """(u,) kept shares of units in the (u,) blocks with these numbers, which fall from block to block.

    The incremental pruning ratio of Ling et al., SlimGPT: Layer-wise Structured Pruning for Large Language Models,
    NeurIPS 2024, https://arxiv.org/abs/2412.18110: block i of n loses r_0 + (r_{n-1} - r_0) log(i + 1) / log(n), as
    errors of early blocks add up behind them. Departure: where the paper chooses both ends, the first loses nothing as
    long as the last has something left, and then the last loses all: r_0 = max(0, 1 - 2 share) and
    r_{n-1} = min(1, 2 - 2 share).
    """
    kept = _share(share)[..., None]
    count = int(np.max(blocks)) + 1
    rise = np.log(np.asarray(blocks) + 1) / math.log(count) if count > 1 else np.full(len(blocks), 0.5)
    first, last = np.maximum(0.0, 1 - 2 * kept), np.minimum(1.0, 2 - 2 * kept)
    return np.asarray(1 - (first + (last - first) * rise))


def sap(
    magnitudes: UnitArrays, gamma: KeptShare, *, eta: float = 0.0, most: float = 0.9, p: float = 0.5, q: float = 1.0
) -> np.ndarray:
    """(u,) kept shares: 1 - min(gamma * (1 - bound / n), most), with the bound of `retained` on each unit's norms.

    Diao et al., Pruning Deep Neural Networks from a Sparsity Perspective, ICLR 2023, https://arxiv.org/abs/2302.05601.
    Departure: norms of positions replace the paper's single weights.
    """
    if not np.all(np.asarray(gamma) >= 0):
        raise ConfigError(f"expected gamma of 0 or more, got {gamma}")
    bounds = np.array([retained(np.sqrt(squares), eta=eta, p=p, q=q) / len(squares) for squares in magnitudes])
    return np.asarray(1 - np.minimum(np.multiply.outer(gamma, np.maximum(1 - bounds, 0.0)), most))


def pq_sparsity(weights: np.ndarray, *, p: float = 0.5, q: float = 1.0) -> float:
    """The PQ index of (n,) weights: 0 if all are equal in magnitude, 1 - n^(1/q - 1/p) if one is not 0; 0 < p < q.

    0 if all weights are 0. Diao et al. 2023 (see `sap`).
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
    """The number of (n,) weights that must stay, by their PQ index (Diao et al. 2023); eta > 0 prunes more."""
    index = pq_sparsity(weights, p=p, q=q)
    return float(len(weights) * (1 + eta) ** (q / (p - q)) * (1 - index) ** (q * p / (q - p)))


def survivors(scores: UnitArrays, keep: Keep) -> np.ndarray:
    """(u,) counts of each unit's positions among the `keep` highest scores of all; their sum is exactly `keep`."""
    lengths = [len(values) for values in scores]
    if not np.all((np.asarray(keep) >= 0) & (np.asarray(keep) <= sum(lengths))):
        raise ConfigError(f"expected to keep from 0 to {sum(lengths)} positions, got {keep}")
    ranks = np.empty(sum(lengths), dtype=np.intp)
    ranks[np.argsort(-np.concatenate(scores), kind="stable")] = np.arange(len(ranks))
    units = np.split(ranks, np.cumsum(lengths)[:-1])
    return np.stack([np.searchsorted(np.sort(own), keep) for own in units], axis=-1)


def _share(share: KeptShare) -> np.ndarray:
    """`share` as an array, checked to be from 0 to 1."""
    shares = np.asarray(share, dtype=float)
    if not ((shares >= 0) & (shares <= 1)).all():
        raise ConfigError(f"expected a kept share from 0 to 1, got {share}")
    return shares
