"""Criteria of weights alone: norms, distances, batch norm scales, and a random order."""

from __future__ import annotations

import torch

from autoprune.errors import PluginError
from autoprune.prune.criteria.contract import UnitStatistics, UnitWeights


def l1(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of a position's absolute producer weights.

    Source:
        Li et al. 2017 (https://arxiv.org/abs/1608.08710, section 3.1).
    """
    return torch.stack([w.abs().sum(dim=1) for w in weights.producers]).sum(dim=0)


def l2(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The Euclidean norm of a position's producer weights, over all producers together."""
    return torch.stack([w.square().sum(dim=1) for w in weights.producers]).sum(dim=0).sqrt()


def lamp(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The squared norm divided by the sum of those that are not smaller, |w_i|^2 / sum_j [|w_j| >= |w_i|] |w_j|^2.

    Within one unit the order is that of l2. A position of zeros has the score 0.

    Source:
        Layer-adaptive magnitude (Lee et al. 2021, https://arxiv.org/abs/2010.07611, equation 1). Departures: positions
        are scored instead of single weights, and equal positions get equal scores, where the paper breaks ties by
        index.
    """
    squares = l2(weights, statistics).double().square()
    rest = (squares[None, :] * (squares[None, :] >= squares[:, None])).sum(dim=1)
    return torch.where(squares > 0, squares / rest.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def fpgm(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of distances to the other positions' producer weights, sum_j |w_i - w_j|.

    A position near the geometric median of all positions can be replaced by the others.

    Source:
        He et al. 2019 (https://arxiv.org/abs/1811.00250, section 3.3).
    """
    rows = torch.cat([w.double() for w in weights.producers], dim=1)
    # without matrix products, which give equal rows a distance of 1e-8 instead of 0
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)


def bn_scale(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of the absolute scales of the batch norms over a position.

    Raises:
        PluginError: the unit has no batch norm with a scale.

    Source:
        Network slimming (Liu et al. 2017, https://arxiv.org/abs/1708.06519, section 3).
    """
    if not weights.scales:
        raise PluginError("expected a batch norm with a scale over its positions, got none. Take another criterion.")
    return torch.stack([scale.abs().sum(dim=1) for scale in weights.scales]).sum(dim=0)


def pq_index(rows: torch.Tensor, p: float = 0.5, q: float = 1.0) -> torch.Tensor:
    """(n,) PQ indices of (n, d) rows, 1 - d^(1/q - 1/p) |w|_p / |w|_q.

    The index is 0 for equal magnitudes and for zeros, and approaches 1 for sparse rows.

    Source:
        Diao et al. 2023 (https://arxiv.org/abs/2302.05601, definition 1).
    """
    magnitudes = rows.double().abs()
    large = magnitudes.amax(dim=1, keepdim=True)
    scaled = magnitudes / torch.where(large > 0, large, 1.0)  # normalised so that powers neither overflow nor vanish
    norms = [scaled.pow(power).sum(dim=1).pow(1 / power) for power in (p, q)]
    index = 1 - rows.shape[1] ** (1 / q - 1 / p) * norms[0] / norms[1].clamp_min(torch.finfo(torch.float64).tiny)
    return torch.where(large[:, 0] > 0, index, 0.0)


def pq(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of a position's absolute producer weights times (1 - PQ index).

    Of two positions with the same norm the one with evenly spread weights stays, since most connections of the other
    could be removed.

    Source:
        Diao et al. 2023 (https://arxiv.org/abs/2302.05601, definition 1, p = 0.5, q = 1). Departure: they use a layer's
        index to decide how much of it to remove, and order by magnitude; here the search decides how much to remove,
        and the index changes the order.
    """
    rows = torch.cat([w.double() for w in weights.producers], dim=1)
    return rows.abs().sum(dim=1) * (1 - pq_index(rows))


def random(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """Scores of a fixed random order, a baseline for other criteria."""
    count = weights.producers[0].shape[0]
    return torch.rand(count, generator=torch.Generator().manual_seed(count))
