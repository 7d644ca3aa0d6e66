"""Optimal brain surgeon: the order of removal when all other positions compensate for each removed one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from autoprune.prune.criteria.contract import PRODUCERS, ConsumerStatistics, UnitStatistics, UnitWeights, needs
from autoprune.prune.criteria.elimination import Elimination, Inaccurate, without
from autoprune.prune.criteria.magnitudes import l2

EXACT = 64  # positions up to which each is removed in a round of its own
ROUND_SHARE = 32  # beyond, a round removes one in 32 of those that remain: damage within 6 % of one by one, either way
CANDIDATES = 2  # candidates for each removal of a round; with one, twins may go together; four are no better
WIDE = 1024  # columns above which the sweep is in float32


@needs("moments")
def obs(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Group-wise optimal brain surgeon: ranks positions by the damage that remains after the best update.

    It repeatedly removes the position whose columns g have the least tr(W_g^T [H^-1]_gg^-1 W_g), and updates W -= W_g
    [H^-1]_gg^-1 H^-1_g and H^-1 -= H^-1_g^T [H^-1]_gg^-1 H^-1_g. H is the second moment of a consumer's inputs. The
    scores are ranks, 0 for the position that is removed first. Without statistics the scores are those of l2.

    Source:
        Hassibi and Stork 1993 (https://papers.nips.cc/paper/647); for groups of columns Kurtic et al. 2022
        (https://arxiv.org/abs/2203.07259, equations 4 and 5). Departures: with several consumers the damages are added,
        each relative to the energy of its dense output; for head dimensions, whose queries and keys have no consumer of
        their own, the shares of a position in the energies of queries, keys and values are added. While more than 64
        positions remain, they are removed in rounds: the positions with the least damages are candidates, one in 32 of
        all positions is removed one by one with updates among the candidates only, and then all others are updated for
        these together, which is exact. Wide consumers are updated in float32; if that proves inaccurate, in float64.
    """
    if not statistics.consumers:
        return l2(weights, statistics)
    own, alike = _own(statistics), _alike(statistics.consumers)
    try:
        return _ranks([Elimination(same, _precision(same[0])) for same in alike], own)
    except Inaccurate:
        return _ranks([Elimination(same, torch.float64) for same in alike], own)


def _own(statistics: UnitStatistics) -> np.ndarray:
    """(n,) damages that no other position compensates: those to queries, keys and values of each consumer."""
    if statistics.produced is None:
        return np.zeros(len(statistics.consumers[0].columns))
    weight = PRODUCERS * len(statistics.consumers)
    return weight * statistics.produced.mean(dim=0).numpy()


def _alike(consumers: Sequence[ConsumerStatistics]) -> list[list[ConsumerStatistics]]:
    """The consumers that have the same second moments, ridge and columns, together: one elimination serves them all."""
    alike: dict[object, list[ConsumerStatistics]] = {}
    for consumer in consumers:
        key = (consumer.gram.data_ptr(), consumer.gram.shape, consumer.columns.numpy().tobytes(), consumer.ridge)
        alike.setdefault(key, []).append(consumer)
    return list(alike.values())


def _precision(consumer: ConsumerStatistics) -> torch.dtype:
    """float32 for wide consumers; only where all columns are the unit's can it be checked."""
    wide = WIDE < consumer.columns.numel() == len(consumer.gram)
    return torch.float32 if wide else torch.float64


def _ranks(consumers: Sequence[Elimination], own: np.ndarray) -> torch.Tensor:
    """(n,) ranks, 0 for the position removed first; `own` damages are added to those of consumers."""
    remaining = np.arange(consumers[0].positions)
    order: list[int] = []
    checked = len(remaining)  # positions that remained at the last check
    while len(remaining):
        chosen = _round(consumers, remaining, own[remaining])
        order += remaining[chosen].tolist()
        remaining = without(remaining, chosen)
        for consumer in consumers:
            consumer.remove(chosen)
        if len(remaining) <= checked / 2:
            checked = len(remaining)
            for consumer in consumers:
                consumer.check()
    ranks = torch.zeros(len(order), dtype=torch.float64)
    ranks[order] = torch.arange(len(order), dtype=torch.float64)
    return ranks


def _round(consumers: Sequence[Elimination], remaining: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The places, among those that remain, of the positions that go next, in their order."""
    count = 1 if len(remaining) <= EXACT else max(1, len(remaining) // ROUND_SHARE)
    damage = own + np.sum([consumer.damages() for consumer in consumers], axis=0)
    least = np.lexsort((remaining, damage))  # ties by position
    if count == 1:
        return least[:1]
    candidates = least[: CANDIDATES * count]
    windows = [consumer.window(candidates) for consumer in consumers]
    picked: list[int] = []
    for _ in range(count):
        damage = own[candidates] + np.sum([window.damages() for window in windows], axis=0)
        damage[picked] = np.inf
        picked.append(int(damage.argmin()))
        for window in windows:
            window.remove(picked[-1])
    return candidates[picked]
