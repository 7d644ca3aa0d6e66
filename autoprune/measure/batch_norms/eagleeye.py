"""Batch norms adapted by EagleEye's recipe, for comparisons with it."""

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
    """Scores with statistics that EagleEye's recipe adapts; networks are deployed with anchored ones.

    Every module is in train mode meanwhile, so that nothing before a difference is as in the dense network.
    """

    reuses_prefix = False

    def settle(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> None:
        recalibrate_as_eagleeye(network, self.calibrate)

    @classmethod
    def deployed(cls) -> type[WrittenStatistics]:
        return Anchored


def recalibrate_as_eagleeye(model: nn.Module, batches: Sequence[tuple[torch.Tensor, ...]], steps: int = 102) -> None:
    """Adapts batch norms the way EagleEye's published code does, in place: for comparisons with it.

    Every module in train mode, dropout too, statistics neither reset nor averaged but moved by each batch norm's own
    momentum, `steps` passes; batches come again from the first where there are fewer. Of the statistics before, a
    share of 0.9^102 = 2.2e-5 remains at the usual momentum. Modes come back.

    Li et al. 2020 (EagleEye, https://arxiv.org/abs/2007.02491; code at https://github.com/anonymous47823493/EagleEye).
    We depart from it in the images alone: its loader augments them, ours are the calibration images as they are.

    Raises DataError when there is no batch.
    """
    if not batches:
        raise DataError("expected at least one batch to adapt batch norms on, got none. Pass a list of batches.")
    with training(model), on_copies(model), torch.no_grad():
        for inputs in itertools.islice(itertools.cycle(batches), steps):
            model(*inputs)
