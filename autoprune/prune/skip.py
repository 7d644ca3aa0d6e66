"""What stands where a removed branch was: modules that compute nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


class Skip(nn.Module):
    """Zeros like the first tensor it is given: no parameters, nothing computed.

    With a `length`, a tuple of that many: the zeros, and None for the rest. Every module of a removed branch becomes
    one, so that no module in place after it can write to the shortcut. It is in the mode (training or not) of the
    module it replaces; that module's hooks are dropped, since they may want its parameters.
    """

    def __init__(self, length: int = 0) -> None:
        super().__init__()
        self.length = length

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = itertools.chain(args, kwargs.values())
        zeros = torch.zeros_like(next(value for value in given if isinstance(value, torch.Tensor)))
        return (zeros, *(None,) * (self.length - 1)) if self.length else zeros


def skip(model: nn.Module, lengths: Mapping[str, int]) -> None:
    """Replaces modules by Skips, in place and wherever they are registered; what is inside another one goes with it."""
    for name, length in lengths.items():
        if within(name.rpartition(".")[0], lengths):
            continue
        old, new = model.get_submodule(name), Skip(length)
        new.training = old.training
        for parent in list(model.modules()):
            for child, module in parent._modules.items():
                if module is old:
                    parent._modules[child] = new


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a module or tensor is one of the modules or lies inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
