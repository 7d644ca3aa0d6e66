"""Optimal brain surgeon for single entries of a weight: the order they go in, and a sweep where that takes too long.

Weights are (g, o, k) float64, for each group of a convolution o outputs and k columns; the Hessian is the (g, k, k)
second moment of what the columns are multiplied with, positive definite. Both may come without g.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from autoprune.prune.bank.masks import keep_largest
from autoprune.prune.moments.regression import by_row

SHRINK = 0.8  # share of the entries a round leaves; with 0.95 errors are 2 to 25 % less, at five times the time
BLOCK = 128  # columns the sweep decides on at once


def removal_order(weight: torch.Tensor, hessian: torch.Tensor, groups: torch.Tensor | None = None) -> torch.Tensor:
    """Ranks of the weight's shape: entries with lower ranks go first, and masks of any quota are nested.

    An entry w_j that goes from a row with the columns S left costs w_j^2 / [H_SS^-1]_jj after the best update of the
    others (Hassibi and Stork 1993, https://papers.nips.cc/paper/647, equation 5). Frantar and Alistarh 2022
    (https://arxiv.org/abs/2208.11580, algorithm 1 and "global step") take away one entry at a time and update; we take
    away a fifth of the layer's entries, the cheapest ones, and solve the least squares of every row again. That is
    exact for any set left, and takes far fewer inversions. With groups, every round takes the cheapest entry of each
    group in each row that has more left than others.

    About 4 g o k^3 multiplications.
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
    """How many entries of the weight, or of each group in each row, every round leaves, down to none."""
    if groups is not None:
        return list(range(int(torch.bincount(groups).max()) - 1, -1, -1))
    quotas = [weight.numel()]
    while quotas[-1]:
        quotas.append(int(SHRINK * quotas[-1]))
    return quotas[1:]


def _damage(weight: torch.Tensor, hessian: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """What each entry that is left would cost; -1 where nothing is left."""
    target = (weight @ hessian).flatten(0, -2)
    damage = torch.full_like(target, -1.0)
    for row, columns, own in by_row(hessian, alive):
        inverse = torch.linalg.inv(own)
        damage[row, columns] = (inverse @ target[row, columns]).square() / inverse.diagonal()
    return damage.view_as(weight)


def _diagonal(matrices: torch.Tensor) -> torch.Tensor:
    """(g, 1, k) of (g, k, k)."""
    return matrices.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)


def sweep(weight: torch.Tensor, hessian: torch.Tensor, count: int, groups: torch.Tensor | None = None) -> torch.Tensor:
    """The pruned and updated weight, from one pass over the columns: g (k^3 + o k^2) multiplications.

    SparseGPT (Frantar and Alistarh 2023, https://arxiv.org/abs/2301.00774, algorithm 1): column by column, what goes is
    made up for by the columns to come, with one factor of H^-1 for all rows of a group. Single entries share a quota
    within 128 columns, which in all keeps `count` entries; with groups each keeps `count`.
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
            own = factor[..., place, place:stop].unsqueeze(-2)  # (g, 1, columns to come)
            error[..., column] = torch.where(stays[..., column], 0.0, block[..., column]) / own[..., 0]
            block[..., column:] -= error[..., column, None] * own
            block[..., column].masked_fill_(~stays[..., column], 0.0)
        left[..., stop:] -= error @ factor[..., start:stop, stop:]
    return torch.empty_like(left).index_copy(-1, order, left)


def _segments(columns: int, count: int, groups: torch.Tensor | None) -> Iterator[tuple[int, int, int]]:
    """First and last column and quota of what is decided on at once: blocks, or groups, whose columns lie together."""
    if groups is None:
        for start in range(0, columns, BLOCK):
            stop = min(start + BLOCK, columns)
            yield start, stop, count * stop // columns - count * start // columns  # `count` in all, none is lost
        return
    stop = 0
    for size in torch.bincount(groups).tolist():
        start, stop = stop, stop + size
        yield start, stop, count
