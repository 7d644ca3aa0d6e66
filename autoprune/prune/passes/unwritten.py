"""Keeps a pass from changing parameters that the network shares with another one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextlib.contextmanager
def unwritten(network: nn.Module) -> Iterator[Guard]:
    """Undoes, at its end, what operators inside write to the network's parameters, also after an exception.

    The guard that it yields tells whether there was anything to undo. A parameter is copied right before an operator
    writes to it, or to a view of it; the others are never copied.
    """
    guard = Guard(network)
    try:
        with guard:
            yield guard
    finally:
        guard.restore()


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Keeps the values of parameters that are written to."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held: dict[int, list[torch.Tensor]] = {}  # parameters by the address of their memory
        for parameter in network.parameters():
            if not parameter.is_meta and parameter.layout is torch.strided:
                self._held.setdefault(_address(parameter), []).append(parameter)
        self._before: dict[int, list[torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable:
            given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
            for argument in func._schema.arguments:
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self._save(given.get(argument.name))
        return func(*args, **kwargs)

    def _save(self, written: object) -> None:
        for tensor in tree_leaves(written):
            strided = isinstance(tensor, torch.Tensor) and tensor.layout is torch.strided and not tensor.is_meta
            address = _address(tensor) if strided else 0
            if address in self._held and address not in self._before:
                self._before[address] = [parameter.detach().clone() for parameter in self._held[address]]

    @property
    def written(self) -> bool:
        """Whether an operator has written to a parameter."""
        return bool(self._before)

    def restore(self) -> None:
        for address, values in self._before.items():
            for parameter, value in zip(self._held[address], values, strict=True):
                parameter.data.copy_(value)


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
