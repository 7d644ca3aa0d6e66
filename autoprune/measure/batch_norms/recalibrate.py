"""Adaptive batch norm: re-estimates the statistics of a pruned network from unlabelled examples."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import DataError
from autoprune.prune.devices.halving import whole_batches
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.borrowed import evaluating, on_copies


def recalibrate(model: nn.Module, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
    """Resets the running statistics of every batch norm to the cumulative average over the batches, in place.

    Only batch norms are in train mode meanwhile, so dropout stays off; modes and momenta are restored, also after an
    exception. The cumulative average weighs batches equally: pass batches of one size in a shuffled, fixed order. The
    running variance is the mean of the within-batch variances. A model without batch norms is not changed.

    Args:
        model: the network; it is changed in place.
        batches: inputs of the model.

    Raises:
        DataError: there is no batch, for example because an iterator was exhausted. Without this error, statistics
            that were only reset would look like a bad network.

    Source:
        Li et al. 2020 (EagleEye, https://arxiv.org/abs/2007.02491, section 3.3). Departures: statistics are reset
        first, so nothing of the dense ones remains; they are averaged instead of moved by a momentum; other modules
        stay in eval mode.
    """
    norms = list(tracked_norms(model).values())
    if not norms:
        return
    count = 0
    with evaluating(model), on_copies(model), _averaging(norms), torch.no_grad():
        for inputs in batches:
            with whole_batches([inputs], stage="re-estimating batch norms"):
                model(*inputs)
            count += 1
    if not count:
        raise DataError("expected at least one batch to re-estimate batch norms on, got none. Pass a list of batches.")


@contextlib.contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Puts batch norms in train mode with reset statistics and cumulative averaging, and restores their momenta."""
    momenta = [norm.momentum for norm in norms]
    hooks = [norm.register_forward_pre_hook(_Averaging()) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.training = True
    try:
        yield
    finally:
        for hook, norm, momentum in zip(hooks, norms, momenta, strict=True):
            hook.remove()
            norm.momentum = momentum


class _Averaging:
    """Gives every call of a batch norm the same weight.

    It does what a momentum of None does, with which torch fetches the number of calls from the device in each call.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, norm: nn.Module, args: tuple[Any, ...]) -> None:
        self.calls += 1
        cast(_BatchNorm, norm).momentum = 1.0 / self.calls
