"""Optimal brain surgeon: the order of removal when all other positions compensate for each removed one."""

from __future__ import annotations

import torch

from autoprune.prune.criteria.contract import ConsumerStatistics, UnitStatistics, UnitWeights, needs
from autoprune.prune.criteria.magnitudes import l2
from autoprune.prune.moments.ridge import ridged


@needs("moments")
def obs(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Group-wise optimal brain surgeon: ranks positions by the damage that remains after the best update.

    It repeatedly removes the position whose columns g have the least tr(W_g^T [H^-1]_gg^-1 W_g), and updates W -= W_g
    [H^-1]_gg^-1 H^-1_g and H^-1 -= H^-1_g^T [H^-1]_gg^-1 H^-1_g. H is the second moment of a consumer's inputs. The
    scores are ranks, 0 for the position that is removed first. Without statistics the scores are those of l2.

    Source:
        Hassibi and Stork 1993 (https://papers.nips.cc/paper/647); for groups of columns Kurtic et al. 2022
        (https://arxiv.org/abs/2203.07259, equations 4 and 5). Departure: with several consumers the damages are added,
        each relative to the energy of its dense output.
    """
    if not statistics.consumers:
        return l2(weights, statistics)
    consumers = [_Downdate(consumer) for consumer in statistics.consumers]
    remaining = list(range(len(statistics.consumers[0].columns)))
    ranks = torch.zeros(len(remaining), dtype=torch.float64)
    for rank in range(len(remaining)):
        damage = torch.stack([consumer.damage(remaining) for consumer in consumers]).sum(dim=0)
        position = remaining.pop(int(damage.argmin()))
        ranks[position] = rank
        for consumer in consumers:
            consumer.remove(position)
    return ranks


class _Downdate:
    """A consumer's weight and inverse Hessian while positions are removed one after the other."""

    def __init__(self, consumer: ConsumerStatistics) -> None:
        self.columns = consumer.columns
        self.weight = consumer.weight.clone()
        self.inverse = torch.linalg.inv(ridged(consumer.gram))
        energy = output_energy(consumer.weight, consumer.gram) if consumer.energy is None else consumer.energy
        self.energy = energy if energy > 0 else float("inf")  # a zero output cannot be damaged

    def damage(self, remaining: list[int]) -> torch.Tensor:
        """(r,) damages of removing each of the remaining positions next."""
        columns = self.columns[remaining]  # (r, m)
        blocks = self.inverse[columns[:, :, None], columns[:, None, :]]  # (r, m, m)
        weights = self.weight[:, columns].permute(1, 2, 0)  # (r, m, o)
        damage: torch.Tensor = (weights * torch.linalg.solve(blocks, weights)).sum(dim=(1, 2)) / self.energy
        return damage

    def remove(self, position: int) -> None:
        columns = self.columns[position]
        rows = self.inverse[columns]  # (m, k)
        solved = torch.linalg.solve(rows[:, columns], rows)  # (m, k)
        self.weight -= self.weight[:, columns] @ solved
        self.inverse -= rows.T @ solved
        # rounding must not restore removed columns
        self.inverse[columns] = 0.0
        self.inverse[:, columns] = 0.0


def output_energy(weight: torch.Tensor, gram: torch.Tensor) -> float:
    """The mean square of the output, tr(W H W^T), of an (o, k) weight with (k, k) second moments."""
    return float(torch.einsum("ok,kl,ol->", weight, gram, weight))
