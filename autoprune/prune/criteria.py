"""Criteria: which positions of a unit matter most. They order positions; how many stay is decided by the search.

A criterion is a function `(weights, statistics) -> scores`, (n,) with one score per position, higher = kept longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from autoprune.errors import PluginError

RIDGE = 1e-4  # of the mean diagonal; between 1e-5 and 1e-3 it makes no difference


@dataclass(frozen=True)
class UnitWeights:
    """A unit's weights, position by position: (n, ...) flattened to (n, k) for each tensor that touches it."""

    producers: tuple[torch.Tensor, ...]
    consumers: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class ConsumerStatistics:
    """What one consumer of the unit does with it.

    `weight` is (o, k), o outputs and k columns; `gram` (k, k) the second moments of the inputs; `columns` (n, m) the
    columns that belong to each of the unit's n positions. float64.
    """

    weight: torch.Tensor
    gram: torch.Tensor
    columns: torch.Tensor


@dataclass(frozen=True)
class UnitStatistics:
    """Statistics of a unit's consumers; empty where none were collected."""

    consumers: tuple[ConsumerStatistics, ...]


Criterion = Callable[[UnitWeights, UnitStatistics], torch.Tensor]


def l1(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Sum of absolute producer weights (Li et al. 2017, https://arxiv.org/abs/1608.08710, section 3.1)."""
    return torch.stack([w.abs().sum(dim=1) for w in weights.producers]).sum(dim=0)


def l2(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Euclidean norm of the producer weights over all producers together."""
    return torch.stack([w.square().sum(dim=1) for w in weights.producers]).sum(dim=0).sqrt()


def random(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """A fixed random order, the baseline a criterion has to beat."""
    count = weights.producers[0].shape[0]
    return torch.rand(count, generator=torch.Generator().manual_seed(count))


def obs(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Group-wise optimal brain surgeon: positions in the order of the damage that remains after the best update.

    Repeatedly removes the group of columns g with the least tr(W_g^T [H^-1]_gg^-1 W_g) and updates
    W -= W_g [H^-1]_gg^-1 H^-1_g, H^-1 -= H^-1_g^T [H^-1]_gg^-1 H^-1_g (Hassibi and Stork 1993; for groups of columns
    Kurtic et al. 2022, https://arxiv.org/abs/2203.07259, equations 4 and 5). H is the second moment of a consumer's
    inputs. Departure: with several consumers the damages are added, each relative to its dense output's energy.

    The scores are ranks: 0 for the position removed first. Without statistics: l2.
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
    """One consumer's weight and inverse Hessian while positions are removed one after the other."""

    def __init__(self, consumer: ConsumerStatistics) -> None:
        self.columns = consumer.columns
        self.weight = consumer.weight.clone()
        self.inverse = torch.linalg.inv(ridged(consumer.gram))
        energy = float(torch.einsum("ok,kl,ol->", consumer.weight, consumer.gram, consumer.weight))
        self.energy = energy if energy > 0 else float("inf")  # nothing comes out, so nothing can be damaged

    def damage(self, remaining: list[int]) -> torch.Tensor:
        """(r,) damage of removing each of the remaining positions next."""
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
        # rounding must not bring removed columns back
        self.inverse[columns] = 0.0
        self.inverse[:, columns] = 0.0


def ridged(gram: torch.Tensor) -> torch.Tensor:
    """The second moments with RIDGE of their mean diagonal added to the diagonal; positive definite also for zeros."""
    strength = RIDGE * float(gram.diagonal().mean())
    return gram + (strength if strength > 0 else 1.0) * torch.eye(len(gram), dtype=gram.dtype)


CRITERIA: dict[str, Criterion] = {"l1": l1, "l2": l2, "obs": obs, "random": random}


def order_positions(criterion: Criterion, weights: UnitWeights, statistics: UnitStatistics, unit: str) -> torch.Tensor:
    """(n,) positions, the ones kept longest first; ties by the lower position. PluginError for unusable scores."""
    result = criterion(weights, statistics)
    count = weights.producers[0].shape[0]
    name = getattr(criterion, "__name__", criterion)
    where = f"criterion {name!r} on unit {unit!r}: expected ({count},) finite scores"
    try:
        scores = torch.as_tensor(result).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise PluginError(f"{where}, got {type(result).__name__}: {error}") from error
    if scores.shape != (count,) or scores.is_complex() or not torch.isfinite(scores).all():
        raise PluginError(
            f"{where}, got shape {tuple(scores.shape)} of {scores.dtype} with "
            f"{int((~torch.isfinite(scores)).sum())} not finite"
        )
    return torch.argsort(scores, descending=True, stable=True)
