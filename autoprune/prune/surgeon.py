"""Optimal brain surgeon for single entries of a weight: the order they go in, and a sweep where that takes too long.

Weights are (o, k) float64, o outputs and k columns; the Hessian is the (k, k) second moment of what the columns are
multiplied with, positive definite.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from autoprune.prune.masking import keep_largest

SHRINK = 0.8  # share of the entries a round leaves; with 0.95 errors are 2 to 25 % less, at five times the time
BLOCK = 128  # columns the sweep decides on at once


def removal_order(weight: torch.Tensor, hessian: torch.Tensor, groups: torch.Tensor | None = None) -> torch.Tensor:
    """(o, k) ranks: entries with lower ranks go first, and masks of any quota are nested.

    An entry w_j that goes from a row with the columns S left costs w_j^2 / [H_SS^-1]_jj after the best update of the
    others (Hassibi and Stork 1993, https://papers.nips.cc/paper/647, equation 5). Frantar and Alistarh 2022
    (https://arxiv.org/abs/2208.11580, algorithm 1 and "global step") take away one entry at a time and update; we take
    away a fifth of the layer's entries, the cheapest ones, and solve the least squares of every row again. That is
    exact for any set left, and takes far fewer inversions. With groups, every round takes the cheapest entry of each
    group in each row that has more left than others.

    About 4 o k^3 multiplications.
    """
    ranks = torch.zeros(weight.shape, dtype=torch.int32)
    alive = torch.ones(weight.shape, dtype=torch.bool)
    damage = weight.square() / torch.linalg.inv(hessian).diagonal()
    for left in _quotas(weight, groups):
        stays = keep_largest(damage, left, groups)
        gone = alive & ~stays
        ranks[gone] = int(ranks.max()) + 1 + torch.argsort(damage[gone], stable=True).argsort().int()
        alive, damage = stays, _damage(weight, hessian, stays)
    return ranks


def _quotas(weight: torch.Tensor, groups: torch.Tensor | None) -> list[int]:
    """How many entries of the matrix, or of each group in each row, every round leaves, down to none."""
    if groups is not None:
        return list(range(int(torch.bincount(groups).max()) - 1, -1, -1))
    quotas = [weight.numel()]
    while quotas[-1]:
        quotas.append(int(SHRINK * quotas[-1]))
    return quotas[1:]


def _damage(weight: torch.Tensor, hessian: torch.Tensor, alive: torch.Tensor) -> torch.Tensor:
    """(o, k) what each entry that is left would cost; -1 where nothing is left."""
    damage = torch.full_like(weight, -1.0)
    target = weight @ hessian
    for row, kept in enumerate(alive):
        columns = kept.nonzero().squeeze(1)
        if len(columns):
            inverse = torch.linalg.inv(hessian[columns][:, columns])
            damage[row, columns] = (inverse @ target[row, columns]).square() / inverse.diagonal()
    return damage


def sweep(weight: torch.Tensor, hessian: torch.Tensor, count: int, groups: torch.Tensor | None = None) -> torch.Tensor:
    """The pruned and updated weight, from one pass over the columns: k^3 + o k^2 multiplications.

    SparseGPT (Frantar and Alistarh 2023, https://arxiv.org/abs/2301.00774, algorithm 1): column by column, what goes is
    made up for by the columns to come, with one factor of H^-1 for all rows. Single entries share a quota within 128
    columns, which in all keeps `count` entries; with groups each keeps `count`.
    """
    order = torch.arange(weight.shape[1]) if groups is None else torch.argsort(groups, stable=True)
    left, hessian = weight[:, order].clone(), hessian[order][:, order]
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    for start, stop, quota in _segments(weight.shape, count, None if groups is None else groups[order]):
        block, error = left[:, start:stop], torch.zeros(len(left), stop - start, dtype=left.dtype)
        saliency = block.square() / factor.diagonal()[start:stop].square()
        within = None if groups is None else torch.zeros(stop - start, dtype=torch.long)
        stays = keep_largest(saliency, quota, within)
        for column in range(stop - start):
            place = start + column
            error[:, column] = torch.where(stays[:, column], 0.0, block[:, column]) / factor[place, place]
            block[:, column:] -= error[:, column, None] * factor[place, place:stop]
            block[:, column].masked_fill_(~stays[:, column], 0.0)
        left[:, stop:] -= error @ factor[start:stop, stop:]
    return torch.empty_like(left).index_copy(1, order, left)


def _segments(shape: torch.Size, count: int, groups: torch.Tensor | None) -> Iterator[tuple[int, int, int]]:
    """First and last column and quota of what is decided on at once: blocks, or groups, whose columns lie together."""
    if groups is None:
        for start in range(0, shape[1], BLOCK):
            stop = min(start + BLOCK, shape[1])
            yield start, stop, count * stop // shape[1] - count * start // shape[1]  # `count` in all, none is lost
        return
    stop = 0
    for size in torch.bincount(groups).tolist():
        start, stop = stop, stop + size
        yield start, stop, count
