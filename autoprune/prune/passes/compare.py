"""Runs networks to compare their outputs: without gradients, at least in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autoprune.prune.modules.copies import copy_model
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.planned import comparable, running
from autoprune.prune.passes.watch import OperatorWatch

OUTPUT_TOLERANCE = 1e-4  # smallest tolerance, relative to the largest output
LOW = (torch.float16, torch.bfloat16)


def outputs(
    model: nn.Module, example: Example, watch: OperatorWatch | None = None, *, train: bool = False
) -> list[torch.Tensor]:
    """The tensors that a call of a model returns, without gradients and in full float32."""
    with running(model, train=train) as network:
        if watch is None:
            return comparable(model, example, example.run(network))
        with watch.watching(network):
            found = comparable(model, example, example.run(network, watch=watch))
        watch.check_complete()
        return found


def precise(model: nn.Module) -> nn.Module:
    """The model itself, or a float32 copy of one with lower precision."""
    low = any(p.dtype in LOW for p in model.parameters())
    return copy_model(model).float() if low else model


def in_precision(example: Example, dtype: torch.dtype = torch.float32) -> Example:
    """The call with its floating-point inputs in at least the precision of a dtype."""
    lower = LOW if dtype == torch.float32 else (*LOW, torch.float32)
    return example.converted(lambda tensor: tensor.to(dtype) if tensor.dtype in lower else tensor)


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
    small, reference = (
        small.cpu().double(),
        reference.cpu().double(),
    )  # integers and booleans are compared in the same way
    scale = reference.abs().max().clamp_min(torch.finfo(torch.float32).tiny)
    error = float(((small - reference).abs().max() / scale).item())
    return error if np.isfinite(error) else float("inf")
