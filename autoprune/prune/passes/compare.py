"""Runs networks to compare their outputs: without gradients, in the precision of a dtype or a higher one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autoprune.prune.devices.precision import doubled
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.planned import comparable, pieces, running
from autoprune.prune.passes.precision import LOWER, computing_in
from autoprune.prune.passes.watch import OperatorWatch

OUTPUT_TOLERANCE = 1e-4  # smallest tolerance, relative to the largest output


def outputs(
    model: nn.Module, example: Example, watch: OperatorWatch | None = None, *, train: bool = False
) -> list[torch.Tensor]:
    """The tensors that a call of a model returns, without gradients and in its own precision."""
    with running(model, train=train) as network:
        if watch is None:
            return comparable(model, example, example.run(network))
        with watch.watching(network):
            found = comparable(model, example, example.run(network, watch=watch))
        watch.check_complete()
        return found


def precise_outputs(
    model: nn.Module,
    example: Example,
    watch: OperatorWatch | None = None,
    *,
    train: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[torch.Tensor]:
    """As `outputs`, but every operator computes at least in the precision of a dtype."""
    exact = example.converted(lambda tensor: tensor.to(dtype) if tensor.dtype in LOWER[dtype] else tensor)
    with computing_in(dtype, model):
        return outputs(model, exact, watch, train=train)


def largest_of(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    """The largest relative difference of two lists of outputs; inf if their lengths differ."""
    if len(first) != len(second):
        return float("inf")
    return max(map(largest_difference, first, second), default=0.0)


def largest_difference(small: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest absolute difference over the largest absolute value of the reference; inf if shapes differ."""
    if small.shape != reference.shape:
        return float("inf")
    if not reference.numel() or reference.is_meta:
        return 0.0
    scale, difference = torch.zeros(2, dtype=torch.float64)
    for own, other in zip(map(doubled, pieces(small)), map(doubled, pieces(reference)), strict=True):
        scale = torch.maximum(scale, other.abs().max())
        difference = torch.maximum(difference, (own - other).abs().max())
    error = float((difference / scale.clamp_min(torch.finfo(torch.float32).tiny)).item())
    return error if np.isfinite(error) else float("inf")
