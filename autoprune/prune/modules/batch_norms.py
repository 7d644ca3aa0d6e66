"""Batch norms that keep running statistics, and statistics anchored to those of the dense network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class NormStatistics:
    """The mean and variance of one batch norm, (c,) each."""

    mean: torch.Tensor
    variance: torch.Tensor

    @staticmethod
    def of(norm: _BatchNorm) -> NormStatistics:
        """The buffers of a batch norm themselves."""
        return NormStatistics(cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var))

    def clone(self) -> NormStatistics:
        return NormStatistics(self.mean.clone(), self.variance.clone())

    def take(self, kept: np.ndarray | None) -> NormStatistics:
        """The statistics of the kept channels, or of all channels if `kept` is None."""
        if kept is None:
            return self
        index = torch.from_numpy(kept).to(self.mean.device)
        return NormStatistics(self.mean[index], self.variance[index])

    def anchored(self, own: NormStatistics, estimated: NormStatistics, eps: float) -> NormStatistics:
        """These statistics of a pruned network, corrected by the error of the dense network's estimate.

        With p these, d the dense network's own statistics and c its estimated ones, the mean is p + (d - c) s and the
        variance p * d / c, where s^2 is the variance of p over that of c. Where p is c, the result is d to the last
        bit. `eps` keeps ratios near 1 for channels that never vary.
        """
        spread = ((self.variance + eps) / (estimated.variance + eps)).sqrt()
        mean = self.mean + (own.mean - estimated.mean) * spread
        variance = self.variance * ((own.variance + eps) / (estimated.variance + eps))
        same = (self.mean == estimated.mean) & (self.variance == estimated.variance)
        return NormStatistics(torch.where(same, own.mean, mean), torch.where(same, own.variance, variance))

    @torch.no_grad()
    def write(self, norm: _BatchNorm) -> None:
        """Sets the running statistics of a batch norm."""
        own = NormStatistics.of(norm)
        own.mean.copy_(self.mean)
        own.variance.copy_(self.variance)


def tracked_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch norms of a model that keep running statistics, by name."""
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm) and m.track_running_stats}


def running_statistics(model: nn.Module) -> dict[str, NormStatistics]:
    """Copies of the running statistics of all batch norms, by name."""
    return {name: NormStatistics.of(norm).clone() for name, norm in tracked_norms(model).items()}


def kept_channels(indices: Mapping[str, Mapping[int, np.ndarray]], norm: str) -> np.ndarray | None:
    """The kept channels of a dense batch norm; None if all stay."""
    return indices.get(f"{norm}.running_mean", {}).get(0)
