"""Adaptive batch norm: statistics of a pruned network, re-estimated from unlabelled images."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import DataError
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.borrowed import evaluating, on_copies


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
