"""Records when each module of a network runs and when each of its tensors is first read, in one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.containers import copied, tensors_of
from autoprune.prune.passes.watch import Execute, OperatorWatch


@dataclass(frozen=True)
class Calls:
    """The order of calls in a forward pass. Moments are counted from 0, one for every start and end of a module.

    Modules that never ran and tensors that were never read are left out.

    Attributes:
        started: the moment of each module's first start.
        ended: the moment of each module's last end.
        read: the moment when an operator first read each tensor.
    """

    started: Mapping[str, int]
    ended: Mapping[str, int]
    read: Mapping[str, int]

    def first_touched(self, tensors: Iterable[str], modules: Iterable[str]) -> int:
        """The first moment at which changes of these tensors, or of the modules' attributes, can have an effect.

        A module's attribute may be read by the module that contains it, before the module itself runs.
        """
        moments = [min(self.read.get(name, self._start(_parent(name))), self._start(_parent(name))) for name in tensors]
        moments += [self._start(_parent(name)) for name in modules]
        return min(moments, default=max(self.ended.values()))

    def before_crossing(self, moment: int, modules: Iterable[str]) -> int:
        """The latest moment, up to `moment`, that lies before or after all calls of each of the modules."""
        crossing = [self.started[m] for m in modules if m in self.started and self.started[m] < moment <= self.ended[m]]
        return self.before_crossing(min(crossing), modules) if crossing else moment

    def complete(self, moment: int) -> list[str]:
        """The outermost modules whose last call has ended before `moment`, in the order of their ends."""
        done = {name for name, end in self.ended.items() if end < moment and name}
        outermost = [name for name in done if not any(above in done for above in _above(name))]
        return sorted(outermost, key=lambda name: self.ended[name])

    def _start(self, module: str) -> int:
        """The start of a module, or of the innermost module around it that runs."""
        while module not in self.started and module:
            module = _parent(module)
        return self.started[module]


def record_calls(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Calls:
    """Runs a network in eval mode on the inputs and returns the order of its calls."""
    clock = _Clock({t.untyped_storage().data_ptr(): name for name, t in named_tensors(network).items() if t.numel()})
    with evaluating(network), torch.no_grad(), clock.watching(network):
        network(*copied(inputs))
    return Calls(clock.started, clock.ended, clock.read)


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _above(name: str) -> list[str]:
    """The modules that contain a module, except for the model itself."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


@dataclass
class _Clock(OperatorWatch):
    names: Mapping[int, str]  # names of tensors by the address of their storage
    started: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    now: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def entered(self, name: str, inputs: Any) -> None:
        super().entered(name, inputs)
        self.started.setdefault(name, self.now)
        self.now += 1

    def left(self, output: Any) -> None:
        self.ended[self.modules[-1]] = self.now
        self.now += 1
        super().left(output)

    def operator(self, name: str, overload: Any, arguments: dict[str, Any], execute: Execute) -> Any:
        for tensor in tensors_of(arguments):
            known = self.names.get(tensor.untyped_storage().data_ptr())
            if known is not None:
                self.read.setdefault(known, self.now)
        return execute(arguments)
