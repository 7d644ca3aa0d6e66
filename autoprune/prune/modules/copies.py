"""Copies of a model with their own tensors: the model's values, or replacements for some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from autoprune.prune.modules.copying import copy_with
from autoprune.prune.modules.ties import copied_values

_SHARING = WeakIdKeyDictionary()  # copies that share parameters; a module may define its own equality


def copy_model(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor] | None = None,
    *,
    share: bool = False,
    connected: bool = False,
) -> nn.Module:
    """A copy of the model, with `tensors` in place of its tensors of the same names.

    The copy shares nothing with the model, which is not touched. Ties, requires_grad, training mode, hooks and
    everything else that modules keep are copied; gradients are not. With `share`, for copies that are only read,
    parameters are shared, and so are the values of `tensors`; buffers are not. In a `connected` copy, hooks write to
    the user's own objects (copying.py).
    """
    memo: dict[int, Any] = {}
    for tensor, value in copied_values(model, tensors or {}, share=share):
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(value, requires_grad=tensor.requires_grad) if is_parameter else value
    copied = copy_with(model, memo, connected=connected)
    if share:
        _SHARING[copied] = True
    return copied


def shares_parameters(network: nn.Module) -> bool:
    """Whether a network was made as a copy that shares parameters with another one, so that nothing may write to it."""
    return network in _SHARING
