"""Follows the outputs of layers through a forward pass, through their batch norms and into ReLUs and additions."""

from __future__ import annotations

import contextlib
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, cast

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.prune.compensation.activations import Activations, storage_of
from autoprune.prune.moments.rectifier import Rectifier
from autoprune.prune.passes.watch import FunctionCalls

ADDITION_FUNCTIONS = ("add", "add_", "__add__", "__radd__", "__iadd__")
IN_PLACE = ("add_", "__iadd__")


class OutputStage(Enum):
    """The last operation that a layer's output has passed."""

    RAW = "before its batch norm"
    FINAL = "its output"
    RECTIFIED = "behind a ReLU"


@dataclass(frozen=True)
class OutputMark:
    """Says which layer's output a tensor is, and at which stage; `step` orders outputs by time."""

    layer: str
    stage: OutputStage
    step: int


@dataclass(frozen=True)
class Layer:
    """A module whose weight multiplies its input, and its batch norm if only a batch norm reads its output."""

    name: str
    module: nn.Module
    norm: _BatchNorm | None


class _Trail(threading.local):
    """What is known about the pass of the present thread.

    Attributes:
        marks: layers' outputs by their place; the version number reveals writes in place.
        step: the number of marks so far.
        busy: whether our own computations run.
        walk: what the pass belongs to.
    """

    def __init__(self) -> None:
        self.marks: dict[tuple[int, int], tuple[weakref.ref[torch.Tensor], int, OutputMark]] = {}
        self.step = 0
        self.busy = False
        self.walk: Any = None


class Passing(Protocol):
    """What a pass belongs to, with the tensors that it has made."""

    activations: Activations


class Following(ABC):
    """Follows the outputs of `layers`, by name, while a model runs; `norms` are its batch norms by name.

    A layer's output is that of its batch norm, if it has one. Subclasses define what happens when it is available.
    `postponed` layers are not run, nor is anything up to their last stage: an uninitialised tensor of that shape
    replaces the output until the subclass supplies it. Several threads may each run a pass.
    """

    def __init__(
        self, layers: Mapping[str, Layer], norms: Mapping[str, _BatchNorm], postponed: Collection[str] = ()
    ) -> None:
        self.layers, self.norms, self.postponed = layers, norms, postponed
        self._here = _Trail()

    @property
    def walk(self) -> Any:
        """What the pass of the present thread belongs to."""
        return self._here.walk

    @abstractmethod
    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Called before a layer runs on x; returns its actual input."""

    @abstractmethod
    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Called before a layer's output is added to another tensor of its shape; returns the tensor to add instead.

        If both operands are outputs of layers, this is called for the later one.
        """

    @abstractmethod
    def norm_called(self, name: str, x: torch.Tensor) -> None:
        """Called before a batch norm runs on x."""

    @abstractmethod
    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        """Called when a layer's output is available."""

    @abstractmethod
    def read(self, mark: OutputMark, rectifier: Rectifier | None) -> None:
        """Called when an operator reads a layer's output at some stage; `rectifier` says whether it is one."""

    def mark_of(self, tensor: Any) -> OutputMark | None:
        """The mark of a tensor; None if it is not the output of a layer, or was changed in place since."""
        if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided:
            return None
        if _place(tensor) not in self._here.marks:
            return None
        reference, version, mark = self._here.marks[_place(tensor)]
        known = reference()
        same = known is not None and known._version == version and known.shape == tensor.shape
        return mark if same else None

    @contextlib.contextmanager
    def hooked(self) -> Iterator[None]:
        """Prepares the model; the passes inside are followed where a thread is in `following`."""
        hooks = []
        for layer in self.layers.values():
            hooks.append(layer.module.register_forward_pre_hook(self._entering(layer)))
            hooks.append(layer.module.register_forward_hook(self._leaving(layer)))
        for name in self.postponed:
            self._postpone(self.layers[name].module)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
            for name in self.postponed:
                del self.layers[name].module.forward

    @contextlib.contextmanager
    def following(self, walk: Passing) -> Iterator[None]:
        """Follows the forward passes of this thread inside, one after the other."""
        self._here.walk = walk
        try:
            with torch.no_grad(), FunctionCalls(self.function):
                yield
        finally:
            self._here.marks.clear()

    @contextlib.contextmanager
    def own(self) -> Iterator[None]:
        """Excludes our own computations inside."""
        before, self._here.busy = self._here.busy, True
        try:
            yield
        finally:
            self._here.busy = before

    def _postpone(self, module: nn.Module) -> None:
        """Makes the module return an uninitialised tensor of the right shape, except in our own computations."""
        forward = module.forward

        def answer(x: torch.Tensor) -> torch.Tensor:
            if self._here.busy:
                return cast(torch.Tensor, forward(x))
            with self.own():
                shapes = {name: parameter.to("meta") for name, parameter in module.named_parameters()}
                shape = functional_call(module, shapes, (x.to("meta"),))
                return cast(torch.Tensor, self.walk.activations.void(torch.empty_like(shape, device=x.device)))

        module.forward = answer

    def _entering(self, layer: Layer) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            if self._here.busy:
                return inputs
            with self.own():
                return self.entered(layer, inputs[0]), *inputs[1:]

        return hook

    def _leaving(self, layer: Layer) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...], z: torch.Tensor) -> None:
            if self._here.busy:
                return
            with self.own():
                self._there(layer.name, z, OutputStage.FINAL if layer.norm is None else OutputStage.RAW)

        return hook

    def _there(self, layer: str, y: torch.Tensor, stage: OutputStage) -> None:
        self._here.step += 1
        self._here.marks[_place(y)] = weakref.ref(y), y._version, OutputMark(layer, stage, self._here.step)
        if stage is OutputStage.FINAL:
            self.produced(self.layers[layer], y)

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Handles one call of torch's Python interface by the model."""
        if self._here.busy:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        marks = [self.mark_of(x) for x in args]
        if name in ADDITION_FUNCTIONS and not kwargs and len(args) == 2:
            args = self._addition(args, marks, in_place=name in IN_PLACE)
        norm = self._norm_of([*args, *kwargs.values()]) if name == "batch_norm" else None
        if norm is not None:
            with self.own():
                self.norm_called(norm, args[0])
        first = marks[0] if marks else None
        rectifier = Rectifier.of(name, args, kwargs)
        stage = None if first is None else self._stage_after(first, rectifier, norm)
        if first and stage and first.layer in self.postponed:
            output = args[0]
        else:
            output = self.walk.activations.call(func, args, kwargs)
        if not isinstance(output, torch.Tensor):  # a size or a boolean
            return output
        for mark in filter(None, marks):
            self.read(mark, rectifier)
        if first and stage:
            self._there(first.layer, output, stage)
        return output

    def _stage_after(self, mark: OutputMark, rectifier: Rectifier | None, norm: str | None) -> OutputStage | None:
        """The stage of a layer's output after a function; None if the result is no longer that output."""
        if mark.stage is OutputStage.RAW and norm is not None and self.layers[mark.layer].norm is self.norms[norm]:
            return OutputStage.FINAL
        return OutputStage.RECTIFIED if mark.stage is OutputStage.FINAL and rectifier is not None else None

    def _norm_of(self, values: Sequence[Any]) -> str | None:
        """The batch norm whose buffers are among the values."""
        return next((name for name, norm in self.norms.items() if any(x is norm.running_mean for x in values)), None)

    def _addition(self, args: tuple[Any, ...], marks: list[OutputMark | None], *, in_place: bool) -> tuple[Any, ...]:
        if not all(isinstance(x, torch.Tensor) for x in args) or args[0].shape != args[1].shape or args[0] is args[1]:
            return args
        steps = [mark.step if mark is not None and mark.stage is OutputStage.FINAL else -1 for mark in marks]
        later = int(steps[1] > steps[0])
        mark, operand = marks[later], args[later]
        if mark is None or steps[later] < 0:
            return args
        with self.own():
            replaced = self.added(mark.layer, operand, args[1 - later])
        if replaced is operand:
            return args
        if later == 1:
            return args[0], replaced
        return operand.copy_(replaced) if in_place else replaced, args[1]


def _place(tensor: torch.Tensor) -> tuple[int, int]:
    """What is unique while a tensor lives, also where its values are put away."""
    return storage_of(tensor), int(tensor.storage_offset())
