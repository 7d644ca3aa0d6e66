"""Replacements for the modules of removed branches, which compute nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any

import torch
from torch import nn

_PLAIN = (bool, int, float, str, NoneType)


class Skip(nn.Module):
    """Returns zeros like its first tensor argument; has no parameters and computes nothing.

    With a `length` it returns a tuple of that length: the zeros, then None. Every module of a removed branch becomes
    one, so that no in-place module after it can write to the shortcut. Code around a module may read its attributes
    before calling it; so flags, numbers and strings are those of the replaced module, including its training mode, and
    that module's parameters are None. Its hooks are dropped, since they may need the parameters.

    In a cache of keys and values of transformers it puts zeros of one head of width 1, as transformers reads the number
    of cached tokens from a single layer, often the first.
    """

    def __init__(self, length: int = 0, replaced: nn.Module | None = None) -> None:
        super().__init__()
        if replaced is not None:
            vars(self).update({name: value for name, value in vars(replaced).items() if isinstance(value, _PLAIN)})
            for name in replaced._parameters:
                self.register_parameter(name, None)
        self._length = length

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        given = (*args, *kwargs.values())
        zeros = torch.zeros_like(next(value for value in given if isinstance(value, torch.Tensor)))
        for value in given:
            if hasattr(value, "get_seq_length"):
                self._count(value, zeros)
        return (zeros, *(None,) * (self._length - 1)) if self._length else zeros

    def _count(self, cache: Any, tokens: torch.Tensor) -> None:
        """Makes the layer's part of a cache as long as that of layers with attention."""
        index, layers = getattr(self, "layer_idx", None), getattr(cache, "layers", None)
        if index is None or layers is None or tokens.dim() != 3:
            return
        if index >= len(layers) or hasattr(layers[index], "get_seq_length"):
            states = tokens[:, None, :, :1]  # (b, heads, t, d)
            cache.update(states, states, index)


def skip(model: nn.Module, lengths: Mapping[str, int]) -> None:
    """Replaces modules by Skips, in place and wherever they are registered, with everything inside them."""
    for name, length in lengths.items():
        if within(name.rpartition(".")[0], lengths):
            continue
        old = model.get_submodule(name)
        new = Skip(length, old)
        for parent in list(model.modules()):
            for child, module in parent._modules.items():
                if module is old:
                    parent._modules[child] = new


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a module or tensor is one of the modules or lies inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)
