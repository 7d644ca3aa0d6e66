"""Recall by class of a network and of the dense one, from counts of right and wrong answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.core.statistics import paired_difference

DRAWS = 1000  # number of bootstrap samples
EVEN = 1e-18  # largest sum of squared balances that rounding alone makes
MOST_CELLS = 1_000_000  # largest number of cells of the samples in memory at once
SURE = (2.5, 97.5)  # percentiles of a 95 % interval


def tallied(classes: np.ndarray, dense_right: np.ndarray, pruned_right: np.ndarray, count: int) -> np.ndarray:
    """(c, 2, 2) numbers of examples by class, by whether the dense network is right, and by whether the other one is.

    Args:
        classes: (n,) the class, or the group, of each example, from 0 to `count` - 1.
        dense_right: (n,) whether the dense network is right.
        pruned_right: (n,) whether the other one is.
        count: the number of classes c.
    """
    cells = (classes * 2 + dense_right) * 2 + pruned_right
    return np.bincount(cells, minlength=4 * count).reshape(count, 2, 2)


def recalls(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The (..., c) recalls of the dense and of the other network; NaN for a class without examples."""
    examples = table.sum(axis=(-2, -1))
    right = table[..., 1, :].sum(axis=-1), table[..., :, 1].sum(axis=-1)
    with np.errstate(invalid="ignore"):
        dense, pruned = (hits / examples for hits in right)
    return dense, pruned


def intensification(table: np.ndarray) -> np.ndarray:
    """(...) The slope of the pruned network's balance by class over the dense network's, through the origin.

    The balance of a class is (recall - accuracy) / accuracy. A slope above 1 says that pruning intensifies what the
    dense network already did: classes with a low recall fall further behind. Classes without examples are left out; NaN
    if the dense network recalls all classes equally, or one of the networks is never right.

    Source:
        Good et al., Recall Distortion in Neural Network Pruning and the Undecayed Pruning Algorithm, 2022
        (https://arxiv.org/abs/2206.02976). Departure: the intensification ratio is read as this slope.
    """
    sums = table.sum(axis=(-3, -2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracies = table[..., 1, :].sum(axis=(-2, -1)) / sums, table[..., :, 1].sum(axis=(-2, -1)) / sums
        balances = (r / a[..., None] - 1 for r, a in zip(recalls(table), accuracies, strict=True))
        dense, pruned = (np.nan_to_num(balance, nan=0.0, posinf=np.inf) for balance in balances)
        spread = np.square(dense).sum(axis=-1)
        slope: np.ndarray = (dense * pruned).sum(axis=-1) / spread
    usable = (accuracies[0] > 0) & (accuracies[1] > 0) & (spread > EVEN)
    return np.where(usable, slope, np.nan)


def bootstrapped(table: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the intensification over images: percentiles of DRAWS samples.

    A sample of n images with replacement has multinomial counts in the cells of the table. Samples in which the slope
    is undefined are left out; both ends are NaN if it is so in all.
    """
    random = np.random.default_rng(seed)
    at_once = max(1, MOST_CELLS // table.size)
    sizes = [min(at_once, DRAWS - start) for start in range(0, DRAWS, at_once)]
    slopes = np.concatenate([intensification(_resampled(table, size, random)) for size in sizes])
    slopes = slopes[~np.isnan(slopes)]
    low, high = np.percentile(slopes, SURE) if len(slopes) else (np.nan, np.nan)
    return float(low), float(high)


def _resampled(table: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """(size, c, 2, 2) tables of samples with replacement."""
    filled = np.flatnonzero(table)
    samples = np.zeros((size, table.size), dtype=np.int64)
    samples[:, filled] = random.multinomial(table.sum(), table.ravel()[filled] / table.sum(), size=size)
    return samples.reshape(size, *table.shape)


@dataclass(frozen=True)
class ClassRecall:
    """The recall of one class, or the accuracy on one group, of both networks.

    Attributes:
        number: the number of the class or group.
        examples: the number of its examples.
        dense: the share of them that the dense network gets right.
        pruned: the share that the other network gets right.
        interval: the 95 % interval of the drop from `dense` to `pruned`.
    """

    number: int
    examples: int
    dense: float
    pruned: float
    interval: tuple[float, float]

    @property
    def drop(self) -> float:
        return self.dense - self.pruned


def by_class(table: np.ndarray) -> list[ClassRecall]:
    """The recall of each class that has examples, with the largest drop first; of equal drops the lower class first."""
    found = []
    for number, ((neither, second), (first, both)) in enumerate(table.tolist()):
        examples = neither + second + first + both
        if examples:
            interval = paired_difference(both, first, second, neither)
            found.append(ClassRecall(number, examples, (first + both) / examples, (second + both) / examples, interval))
    return sorted(found, key=lambda one: -one.drop)
