"""Copies of models: with the model's own parameters, or with others in their place."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from autoprune.errors import UnsupportedModel


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each tensor once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy that has the model's own parameters and nothing else in common with it."""
    return copy_with(model, {id(parameter): parameter for parameter in model.parameters()})


def copy_with(model: nn.Module, memo: Mapping[int, Any]) -> nn.Module:
    """A deep copy with replacements by id of what they replace.

    Raises UnsupportedModel for a model that cannot be copied.
    """
    stray = {  # results of an earlier forward that modules kept: tensors with a history refuse to be copied
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, {**stray, **memo})
    except Exception as error:  # whatever a user's object raises when it is copied
        raise UnsupportedModel(
            f"expected a model that can be copied (copy.deepcopy), got {type(error).__name__} from a "
            f"{type(model).__name__}: {error}"
        ) from error


def model_digest(model: nn.Module) -> str:
    """sha256 over names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named_tensors(model).items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
