"""Which of some known batches a network is running on, so that what is known about a batch can be used in the pass."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn


class Followed:
    """Known batches by key. A batch is known by its first input, the very tensor: fitness functions are given the
    batches and pass their inputs on; inputs that were changed on the way are not known, and nothing is assumed of them.
    """

    def __init__(self, inputs: Mapping[Hashable, tuple[torch.Tensor, ...]]) -> None:
        self._inputs = dict(inputs)
        self._keys = {id(given[0]): key for key, given in self._inputs.items()}
        self.current: Hashable | None = None

    @contextlib.contextmanager
    def following(self, network: nn.Module) -> Iterator[None]:
        """Inside, `current` is the key of the batch the network runs on, None where it is not known."""
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
