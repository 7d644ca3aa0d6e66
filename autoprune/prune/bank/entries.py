"""Optimal brain surgeon for single entries of a weight: their order of removal, or a faster sweep.

Weights are (g, o, k) float64, with o outputs and k columns for each group of a convolution. The Hessian is (g, k, k),
the second moment of the columns' inputs, and positive definite. The dimension g may be missing in both.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from autoprune.prune.bank.masks import keep_largest
from autoprune.prune.moments.regression import by_row

SHRINK = 0.8  # share of the entries that a round leaves; 0.95 gives 2 to 25 % less error in five times the time
BLOCK = 128  # number of columns that the sweep decides on at once


def removal_order(weight: torch.Tensor, hessian: torch.Tensor, groups: torch.Tensor | None = None) -> torch.Tensor:
    """Ranks the entries of a weight by their order of removal; entries with lower ranks are removed first.

    So the masks of all quotas are nested. Removing an entry w_j from a row with the remaining columns S costs w_j^2 /
    [H_SS^-1]_jj after the best update of the others. Every round removes the cheapest fifth of the layer's remaining
    entries and solves the least squares of every row again. With groups, every round removes the cheapest entry of each
    group in each row, beginning with the largest groups. This takes about 4 g o k^3 multiplications.

    Args:
        weight: the weight.
        hessian: the second moments of its inputs.
        groups: (k,) the group of each column for a pattern; None for single entries.

    Returns:
        Integer ranks of the weight's shape.

    Source:
        Hassibi and Stork 1993 (https://papers.nips.cc/paper/647, equation 5) for the cost; Frantar and Alistarh 2022
        (https://arxiv.org/abs/2208.11580, algorithm 1 and "global step") for the order. Departure: they remove one
        entry at a time and update the others; solving the least squares again is exact for any set of remaining
        entries, and takes far fewer inversions.
    """
    ranks = torch.zeros(weight.shape, dtype=torch.int32)
    alive = torch.ones(weight.shape, dtype=torch.bool)
    damage = weight.square() / _diagonal(torch.linalg.inv(hessian))
    for left in _quotas(weight, groups):
        stays = keep_largest(damage, left, groups)
        gone = alive & ~stays
        ranks[gone] = int(ranks.max()) + 1 + torch.argsort(damage[gone], stable=True).argsort().int()
        alive, damage = stays, _damage(weight, hessian, stays)
    return ranks


def _quotas(weight: torch.Tensor, groups: torch.Tensor | None) -> list[int]:
    """The number of entries that remain after each round, in the weight or in each group of each row, down to 0."""
    if groups is not None:
        return list(range(int(torch.bincount(groups).max()) - 1, -1, -1))
    quotas = [weight.numel()]
    while quotas[-1]:
        quotas.append(int(SHRINK * quotas[-1]))
    return quotas[1:]


def _damage(weight: torch.Tensor, hessian: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """The damage of removing each remaining entry; -1 for removed entries."""
    target = (weight @ hessian).flatten(0, -2)
    damage = torch.full_like(target, -1.0)
    for row, columns, own in by_row(hessian, alive):
        inverse = torch.linalg.inv(own)
        damage[row, columns] = (inverse @ target[row, columns]).square() / inverse.diagonal()
    return damage.view_as(weight)


def _diagonal(matrices: torch.Tensor) -> torch.Tensor:
    """The diagonals of (g, k, k) matrices, (g, 1, k)."""
    return matrices.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)


def sweep(weight: torch.Tensor, hessian: torch.Tensor, count: int, groups: torch.Tensor | None = None) -> torch.Tensor:
    """Prunes and updates a weight in one pass over its columns, with g (k^3 + o k^2) multiplications.

    Column by column, the remaining columns compensate for the removed entries, with one factor of H^-1 for all rows of
    a group.

    Args:
        weight: the weight.
        hessian: the second moments of its inputs.
        count: the number of entries that stay: in the weight, with a quota for every 128 columns, or with `groups` in
            each group of each row.
        groups: (k,) the group of each column for a pattern; None for single entries.

    Returns:
        The weight, 0 at removed entries.

    Source:
        SparseGPT (Frantar and Alistarh 2023, https://arxiv.org/abs/2301.00774, algorithm 1).
    """
    order = torch.arange(weight.shape[-1]) if groups is None else torch.argsort(groups, stable=True)
    left, hessian = weight[..., order], hessian[..., order, :][..., order]
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    for start, stop, quota in _segments(weight.shape[-1], count, None if groups is None else groups[order]):
        block = left[..., start:stop]
        error = torch.zeros_like(block)
        saliency = block.square() / _diagonal(factor)[..., start:stop].square()
        within = None if groups is None else torch.zeros(stop - start, dtype=torch.long)
        stays = keep_largest(saliency, quota, within)
        for column in range(stop - start):
            place = start + column
            own = factor[..., place, place:stop].unsqueeze(-2)  # (g, 1, remaining columns)
            error[..., column] = torch.where(stays[..., column], 0.0, block[..., column]) / own[..., 0]
            block[..., column:] -= error[..., column, None] * own
            block[..., column].masked_fill_(~stays[..., column], 0.0)
        left[..., stop:] -= error @ factor[..., start:stop, stop:]
    return torch.empty_like(left).index_copy(-1, order, left)


def _segments(columns: int, count: int, groups: torch.Tensor | None) -> Iterator[tuple[int, int, int]]:
    """Yields the start, stop and quota of each segment of columns, a block or a group, that is decided on at once."""
    if groups is None:
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            yield start, stop, count * stop // columns - count * start // columns  # the quotas add up to `count`
        return
    stop = 0
    for size in torch.bincount(groups).tolist():
        start, stop = stop, stop + size
        yield start, stop, count
