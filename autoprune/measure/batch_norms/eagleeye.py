"""Batch norm statistics as EagleEye's published code adapts them, for comparisons."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.measure.batch_norms.contract import WrittenStatistics
from autoprune.measure.batch_norms.two_pass import Anchored
from autoprune.prune.modules.borrowed import on_copies, training
from autoprune.prune.surgery.surgery import Indices


class EagleEye(WrittenStatistics):
    """Scores with statistics adapted as in EagleEye's published code; deployed networks get anchored statistics.

    Every module is in train mode meanwhile, so even layers before the first difference change.
    """

    reuses_prefix = False

    def settle(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> None:
        recalibrate_as_eagleeye(network, self.calibrate)

    @classmethod
    def deployed(cls) -> type[WrittenStatistics]:
        return Anchored


def recalibrate_as_eagleeye(model: nn.Module, batches: Sequence[tuple[torch.Tensor, ...]], steps: int = 102) -> None:
    """Adapts batch norms in place as EagleEye's published code does, for comparisons.

    Every module is in train mode, dropout included. Statistics are neither reset nor averaged: each batch norm's own
    momentum moves them. At the default momentum, a share of 0.9^102 = 2.2e-5 of the previous statistics remains. Modes
    are restored.

    Args:
        model: the network; it is changed in place.
        batches: inputs of the model. They are repeated in order if there are fewer than `steps`.
        steps: number of forward passes.

    Raises:
        DataError: there is no batch.

    Source:
        Li et al. 2020 (EagleEye, https://arxiv.org/abs/2007.02491; code at
        https://github.com/anonymous47823493/EagleEye). Departure: its loader augments the images; we pass the
        calibration examples as they are.
    """
    if not batches:
        raise DataError("expected at least one batch to adapt batch norms on, got none. Pass a list of batches.")
    with training(model), on_copies(model), torch.no_grad():
        for inputs in itertools.islice(itertools.cycle(batches), steps):
            model(*inputs)
