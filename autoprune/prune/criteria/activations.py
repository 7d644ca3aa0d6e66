"""Criteria of consumers' inputs: norms, variances and means of activations, with the weights that multiply them.

All scores are sums over a unit's consumers and, for each consumer, over the columns of a position.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from autoprune.errors import PluginError
from autoprune.prune.criteria.contract import ConsumerStatistics, UnitStatistics, UnitWeights, needs


@needs("moments")
def wanda(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of |W_ij| |X_j| over all outputs i and the columns j of a position.

    Source:
        Sun et al. 2024 (https://arxiv.org/abs/2306.11695, equation 1). Departures: whole columns are scored instead of
        single weights; |X_j| is the root mean square, which is the norm up to a common factor.
    """
    return _over_consumers(statistics, lambda c: c.weight.abs().sum(dim=0) * c.square.sqrt())


@needs("moments")
def flap(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of Var(X_j) |W_j|^2 over the columns j of a position, the part of the output that no constant absorbs.

    Source:
        An et al. 2024 (https://arxiv.org/abs/2312.11983, weighted input feature variance). Departure: scores are not
        standardised across layers, as the search decides how much of each unit stays.
    """
    return _over_consumers(statistics, lambda c: c.variance * c.weight.square().sum(dim=0))


@needs("moments")
def activation_variance(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The variance of a position's activations in consumers' inputs; a position that never changes is a constant.

    Source:
        Polyak and Wolf 2015 (channel-level acceleration, https://doi.org/10.1109/ACCESS.2015.2494536, inbound pruning).
        Departure: the weights are left out.
    """
    return _over_consumers(statistics, lambda c: c.variance)


@needs("moments")
def activation_norm(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The root mean square of a position's activations in consumers' inputs.

    Source:
        The first stage of 2SSP (Sandri et al. 2025, https://arxiv.org/abs/2501.17771, equation 2). Departure: the norm
        is taken over all tokens together, where the paper averages the norms of single sequences.
    """
    return _over_consumers(statistics, lambda c: c.square).sqrt()


@needs("moments")
def activation_mean(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The absolute mean of a position's activations in consumers' inputs.

    Source:
        Molchanov et al. 2017 (https://arxiv.org/abs/1611.06440, section 2.2, "mean activation"). Departure: the mean is
        taken after the activation function, as consumers read it, so the absolute value matters only for activation
        functions with negative values.
    """
    return _over_consumers(statistics, _mean)


@needs("moments")
def relative(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The sum of (|W_ij| / sum_i |W_ij| + |W_ij| / sum_j |W_ij|) |X_j|^(1/2) over the columns j of a position.

    Source:
        Relative importance and activations (Zhang et al. 2024, https://iclr.cc/virtual/2024/poster/18549, a = 1/2).
        Departures: whole columns are scored instead of single weights; |X_j| is the root mean square.
    """
    return _over_consumers(statistics, _relative)


def _over_consumers(
    statistics: UnitStatistics, column_scores: Callable[[ConsumerStatistics], torch.Tensor]
) -> torch.Tensor:
    """(n,) sums over consumers and over the columns of each position."""
    if not statistics.consumers:
        raise PluginError("expected statistics of a consumer, got none. Take a criterion of weights, such as l2.")
    return torch.stack([c.by_position(column_scores(c)).double() for c in statistics.consumers]).sum(dim=0)


def _mean(consumer: ConsumerStatistics) -> torch.Tensor:
    return torch.zeros(len(consumer.gram)) if consumer.mean is None else consumer.mean.abs()


def _relative(consumer: ConsumerStatistics) -> torch.Tensor:
    size = consumer.weight.abs()
    by_column, by_output = size.sum(dim=0), size.sum(dim=1, keepdim=True)
    shares = size / torch.where(by_column > 0, by_column, 1.0) + size / torch.where(by_output > 0, by_output, 1.0)
    return shares.sum(dim=0) * consumer.square.pow(0.25)  # the square root of the root mean square
