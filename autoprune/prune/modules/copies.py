"""Copies of a model with tensors of their own: its own values, or others in the place of some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autoprune.prune.modules.copying import copy_with
from autoprune.prune.modules.ties import copied_values


def copy_model(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor] | None = None,
    *,
    share: bool = False,
    connected: bool = False,
) -> nn.Module:
    """A copy of the model, in which `tensors` take the place of those of the same names.

    The copy shares nothing with the model, which is not touched. Ties, requires_grad, training mode, hooks and
    everything else modules keep come along; gradients do not. With `share`, for copies that are only looked at,
    parameters are not copied. Where the copy is `connected`, hooks fill what the user gave them (copying.py).
    """
    memo: dict[int, Any] = {}
    for tensor, value in copied_values(model, tensors or {}, share=share):
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(value, requires_grad=tensor.requires_grad) if is_parameter else value
    return copy_with(model, memo, connected=connected)
