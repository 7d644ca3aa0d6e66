"""Adaptive batch norm: statistics of a pruned network, re-estimated from unlabelled images."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import DataError
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.borrowed import evaluating, on_copies, training


def recalibrate(model: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
    """Resets the running statistics of every batch norm to the cumulative average over the batches, in place.

    Only batch norms are in train mode meanwhile, so dropout stays off; modes and momenta are put back, also after an
    exception. The cumulative average weighs batches equally: pass batches of one size in a shuffled, fixed order. The
    running variance is the mean of the within-batch variances. A model without batch norms is left alone.

    Li et al. 2020 (EagleEye, https://arxiv.org/abs/2007.02491, section 3.3); we depart from it by resetting first
    (nothing of the dense statistics remains), by averaging instead of a momentum, and by leaving other modules in eval.

    Raises DataError when there is no batch (an iterator that was used before): statistics that were only reset would
    pass for a bad network.
    """
    norms = list(tracked_norms(model).values())
    if not norms:
        return
    count = 0
    with evaluating(model), on_copies(model), _averaging(norms), torch.no_grad():
        for inputs in batches:
            model(*inputs)
            count += 1
    if not count:
        raise DataError("expected at least one batch to re-estimate batch norms on, got none. Pass a list of batches.")


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


@contextlib.contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Batch norms in train mode with fresh statistics and cumulative averaging; their momenta come back."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.training = True
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
