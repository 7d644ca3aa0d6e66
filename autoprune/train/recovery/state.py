"""The state of a training as named tensors and plain facts, from which it is continued."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Saved:
    """A state: tensors by names such as "network.conv.weight", and facts that JSON can hold."""

    tensors: Mapping[str, torch.Tensor]
    facts: Mapping[str, Any]


def joined(**parts: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All tensors of the parts, with the name of the part before each."""
    return {f"{name}.{key}": tensor for name, tensors in parts.items() for key, tensor in tensors.items()}


def part(name: str, saved: Saved) -> dict[str, torch.Tensor]:
    """The tensors of one part, without its name."""
    return {key.removeprefix(f"{name}."): x for key, x in saved.tensors.items() if key.startswith(f"{name}.")}


def optimizer_tensors(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The tensors of an optimizer, by the kind of each and the name of its parameter, such as "exp_avg.conv.weight"."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        f"{kind}.{names[id(parameter)]}": tensor
        for parameter, kinds in optimizer.state.items()
        for kind, tensor in kinds.items()
        if isinstance(tensor, torch.Tensor)
    }


def load_optimizer(network: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Puts the tensors into an optimizer of the network's parameters."""
    for key, tensor in tensors.items():
        kind, _, name = key.partition(".")
        parameter = network.get_parameter(name)
        device = "cpu" if kind == "step" else parameter.device  # where torch keeps the count of steps
        optimizer.state[parameter][kind] = tensor.to(device)
