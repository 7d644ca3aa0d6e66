"""Identifies the batch that a network is running on, so that recorded values of a batch can be used in the pass."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn


class Followed:
    """Known batches by key. A batch is identified by its first input, the tensor object itself: fitness functions pass
    the inputs of their batches on to the network. Inputs that a fitness replaced by other tensors are not identified.
    """

    def __init__(self, inputs: Mapping[Hashable, tuple[torch.Tensor, ...]]) -> None:
        self._inputs = dict(inputs)
        self._keys = {id(given[0]): key for key, given in self._inputs.items()}
        self.current: Hashable | None = None

    @contextlib.contextmanager
    def following(self, network: nn.Module) -> Iterator[None]:
        """Keeps `current` at the key of the batch that the network is running on, None if the batch is not known."""
        enter = network.register_forward_pre_hook(self._enter, prepend=True)
        leave = network.register_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()
            self.current = None

    def _enter(self, network: nn.Module, args: Sequence[Any]) -> None:
        self.current = self._keys.get(id(args[0])) if args else None

    def _leave(self, network: nn.Module, args: Sequence[Any], output: Any) -> None:
        self.current = None
