"""Runs of networks to compare their outputs: without gradients, in float32 at least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autoprune.prune.modules.copies import copy_model
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.planned import comparable, running
from autoprune.prune.passes.watch import Watch

TOLERANCE = 1e-4  # the least that may differ, relative to the largest output
LOW = (torch.float16, torch.bfloat16)


def outputs(
    model: nn.Module, example: Example, watch: Watch | None = None, *, train: bool = False
) -> list[torch.Tensor]:
    """The tensors a call of a model returns, without gradients and in full float32."""
    with running(model, train=train) as network:
        if watch is None:
            return comparable(model, example, example.run(network))
        with watch.watching(network):
            found = comparable(model, example, example.run(network, watch=watch))
        watch.check_complete()
        return found


def precise(model: nn.Module) -> nn.Module:
    """The model itself, or a copy in float32 of one with less precision."""
    low = any(p.dtype in LOW for p in model.parameters())
    return copy_model(model).float() if low else model


def in_precision(example: Example, dtype: torch.dtype = torch.float32) -> Example:
    """The call on numbers that have at least the precision of a type."""
    lower = LOW if dtype == torch.float32 else (*LOW, torch.float32)
    return example.converted(lambda tensor: tensor.to(dtype) if tensor.dtype in lower else tensor)


def largest_of(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float:
    """The largest difference of two lists of outputs; inf where they are not of one length."""
    if len(first) != len(second):
        return float("inf")
    return max(map(largest_difference, first, second), default=0.0)


def largest_difference(small: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest absolute difference over the largest absolute value of the reference; inf where shapes differ."""
    if small.shape != reference.shape:
        return float("inf")
    if not reference.numel() or reference.is_meta:
        return 0.0
    small, reference = small.cpu().double(), reference.cpu().double()  # integers and flags are compared alike
    scale = reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    error = float(((small - reference).abs().max() / scale).item())
    return error if np.isfinite(error) else float("inf")
