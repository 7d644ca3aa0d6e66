"""Fills the sums of consumers while a network runs; modules that read the same tensor share theirs."""

from __future__ import annotations

import functools
import weakref
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from autoprune.prune.moments.consumers import Caller, Consumer
from autoprune.prune.moments.sums import Sums, tensors_in


class Diverged(Exception):
    """Two modules that read the same tensor in the first batch do not do so in a later one."""


class Watch:
    """Hooks on the callers of consumers that fill sums.

    In the first batch it is decided which modules share sums: those that read the same tensor in the same way, unless
    several modules call their weight. In later batches, this is verified.

    Args:
        consumers: the consumers by weight name.
        apart: the weights that must not share the sums of others.
        examples: the number of examples in all batches.

    Attributes:
        sums: the sums by weight, and by the parameter that absorbs a constant, as each such parameter has its own mean.
        diverged: the weight that must not share the sums of others either, after Diverged was raised.
    """

    def __init__(self, consumers: Mapping[str, Consumer], apart: Collection[str], examples: int) -> None:
        self.sums: dict[str, dict[str, Sums]] = {}
        self.diverged = ""
        self._consumers, self._apart, self._examples = consumers, apart, examples
        self._first, self._batch, self._before = True, 0, 0
        self._calls: Counter[str] = Counter()  # of the batch, by weight
        self._leaders: dict[str, str] = {}  # weight -> the weight whose sums it shares, or itself
        self._read: dict[object, tuple[str, weakref.ref[torch.Tensor]]] = {}  # what was read in the batch, and by whom

    def attach(self, network: nn.Module) -> None:
        """Puts hooks on the network's modules."""
        for name, consumer in self._consumers.items():
            own = self.sums.setdefault(name, {})
            for caller in consumer.callers:
                module = network.get_submodule(caller.module)
                device = next(module.parameters()).device
                own.setdefault(caller.constant, Sums(consumer, device, self._examples))
                hook = functools.partial(self._add, name, caller)
                module.register_forward_pre_hook(hook, with_kwargs=True)

    def begin(self, examples: int) -> None:
        """Notes that a batch of so many examples follows."""
        self._before += self._batch
        self._batch = examples
        self._calls.clear()
        self._read.clear()

    def end(self) -> None:
        """Notes that the batch is over.

        Raises:
            Diverged: a module that shares sums ran more or less often than the one it shares them with.
        """
        for name, leader in self._leaders.items():
            if self._calls[name] != self._calls[leader]:
                self._diverge(name)
            if self._first and name != leader:
                ((constant, _),) = self.sums[name].items()
                ((_, shared),) = self.sums[leader].items()
                self.sums[name] = {constant: shared}
        self._first = False

    def _add(self, name: str, caller: Caller, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = tensors_in(args, kwargs)
        sums = self.sums[name][caller.constant]
        if not sums.refuse(module, inputs) and self._leads(name, inputs[0]):
            sums.add(inputs[0].detach(), self._batch, self._before)

    def _leads(self, name: str, x: torch.Tensor) -> bool:
        """Whether a weight adds what it reads to its sums, because no other weight it shares them with has done so."""
        consumer = self._consumers[name]
        if len(consumer.callers) > 1 or name in self._apart:
            return True
        self._calls[name] += 1
        key = (id(x), x._version, consumer.design, consumer.form, consumer.blocks)
        reader, reference = self._read.get(key, ("", None))
        if reference is None or reference() is not x:  # ids of tensors that are gone are used again
            reader = ""
        if self._first and self._calls[name] == 1:
            self._leaders[name] = reader or name
        leader = self._leaders.get(name, name)
        if leader == name:
            self._read[key] = (name, weakref.ref(x))
        elif reader != leader:
            self._diverge(name)
        return leader == name

    def _diverge(self, name: str) -> None:
        self.diverged = name
        raise Diverged
