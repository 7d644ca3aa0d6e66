"""Criteria of experts: what the router gives to each, and what its output is worth."""

from __future__ import annotations

import torch

from autoprune.prune.criteria.contract import UnitStatistics, UnitWeights, needs
from autoprune.prune.criteria.surgeon import obs


@needs("moments", "routing")
def reap(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The mean of the router's weight times the norm of the expert's output, over the rows that the expert gets.

    Units of other kinds are ordered by obs.

    Source:
        REAP (Lasby et al. 2025, https://arxiv.org/abs/2510.13999, equation 9). An expert without rows has the score 0.
    """
    return obs(weights, statistics) if statistics.routed is None else statistics.routed.salience


@needs("moments", "routing")
def mone(weights: UnitWeights, statistics: UnitStatistics) -> torch.Tensor:
    """The norm of the output's standard deviation over an expert's rows, times the sum of the router's weights.

    An expert that is seldom called, or whose output hardly varies, goes first. Units of other kinds are ordered by obs.

    Source:
        MoNE (Zhang et al. 2025, https://arxiv.org/abs/2507.00390, section 3.2). Departure: experts that go are removed
        with their router rows, where the paper leaves their mean outputs as constants.
    """
    routed = statistics.routed
    return obs(weights, statistics) if routed is None else routed.deviation.norm(dim=1) * routed.weight
