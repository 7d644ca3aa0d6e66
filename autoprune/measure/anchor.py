"""Batch-norm statistics of a pruned network, anchored to the dense network's own.

Re-estimating statistics on a few hundred calibration images damages even the dense network: the images are a sample,
and training saw augmented ones. That damage has nothing to do with pruning, and the dense network shows how large it
is. So we re-estimate the dense network too, on the same batches, and use the difference to its own statistics as a
control variate: with d the dense network's own mean and variance, c its re-estimated ones, p the pruned network's,

    mean = p + (d - c) s      variance = p * d / c      s^2 = variance of p / variance of c

A network that lost nothing gets its own statistics back, to the last bit, and the noise that both estimates share
cancels. The factor s keeps the correction small for channels that hardly vary any more: without it a layer in which
little is left is moved by many of its own standard deviations, and one with nothing left no longer puts out a constant
(ResNet-32 with 95 % of every layer's weights removed: KL to the dense network 1,011, with the factor 2.2). On ResNet-20
and CIFAR-10 with 500 images the KL to the dense network falls from 0.096 to 0 for the dense network itself, from 0.217
to 0.119 at 75 % of the MACs and from 0.675 to 0.606 at 50 % (uniform widths, 2,000 images of the training set;
benchmarks/batch_norms.py). We know of no system that does this; plain re-estimation is what the literature calls
adaptive batch norm.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.measure.recalibrate import recalibrate
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.surgery.surgery import Indices


@dataclass(frozen=True)
class Moments:
    """Mean and variance of one batch norm, (c,) each."""

    mean: torch.Tensor
    variance: torch.Tensor

    @staticmethod
    def of(norm: _BatchNorm) -> Moments:
        """The buffers of a batch norm themselves."""
        return Moments(cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var))

    def clone(self) -> Moments:
        return Moments(self.mean.clone(), self.variance.clone())

    def take(self, kept: np.ndarray | None) -> Moments:
        """Those of the kept channels, or of all."""
        if kept is None:
            return self
        index = torch.from_numpy(kept).to(self.mean.device)
        return Moments(self.mean[index], self.variance[index])

    def anchored(self, own: Moments, estimated: Moments, eps: float) -> Moments:
        """These, corrected by the error of the dense network's estimate; `eps` keeps ratios near 1 for channels that
        never vary."""
        spread = ((self.variance + eps) / (estimated.variance + eps)).sqrt()
        mean = self.mean + (own.mean - estimated.mean) * spread
        variance = self.variance * ((own.variance + eps) / (estimated.variance + eps))
        same = (self.mean == estimated.mean) & (self.variance == estimated.variance)
        return Moments(torch.where(same, own.mean, mean), torch.where(same, own.variance, variance))


@dataclass(frozen=True)
class Anchor:
    """The dense network's own statistics and its re-estimated ones, by name of the batch norm."""

    own: Mapping[str, Moments]
    estimated: Mapping[str, Moments]

    @staticmethod
    def of(model: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]]) -> Anchor:
        """Re-estimates a copy of the dense network on the batches every candidate is re-estimated on."""
        copy = copy_model(model)
        recalibrate(copy, batches)
        return Anchor(own_moments(model), own_moments(copy))

    def correct(self, network: nn.Module, indices: Indices) -> None:
        """Replaces the re-estimated statistics of a pruned network by the anchored ones, in place.

        `indices` says which channels of each tensor of the dense network the pruned one keeps.
        """
        for name, norm in tracked_norms(network).items():
            kept = kept_channels(indices, name)
            own, estimated = self.own[name].take(kept), self.estimated[name].take(kept)
            settle(norm, Moments.of(norm).anchored(own, estimated, norm.eps))


def own_moments(model: nn.Module) -> dict[str, Moments]:
    """Copies of the running statistics of all batch norms."""
    return {name: Moments.of(norm).clone() for name, norm in tracked_norms(model).items()}


def kept_channels(indices: Indices, norm: str) -> np.ndarray | None:
    """The channels of a dense batch norm that stay, None where all do."""
    return indices.get(f"{norm}.running_mean", {}).get(0)


def settle(norm: _BatchNorm, moments: Moments) -> None:
    """Sets the running statistics of a batch norm."""
    own = Moments.of(norm)
    own.mean.copy_(moments.mean)
    own.variance.copy_(moments.variance)
