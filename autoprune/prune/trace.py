"""Finds the structure of a network by running it once and relating the axes of every operator's tensors.

The network runs as it is, on the example inputs, under a TorchDispatchMode: control flow, hooks and custom modules
need no capture. An operator without a rule freezes every axis it touches, with operator and module as the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoprune.errors import UnsupportedModel
from autoprune.prune.assemble import assemble
from autoprune.prune.axes import fresh
from autoprune.prune.modes import evaluating
from autoprune.prune.recorder import Axes, Call, Recorder
from autoprune.prune.rules import find_rule
from autoprune.prune.structure import Structure

Examples = torch.Tensor | Sequence[Any] | Mapping[str, Any]


def find_structure(model: nn.Module, example_inputs: Examples) -> Structure:
    """The units, frozen parts and cost polynomials of a network.

    Args:
        model: any module; it is run once in eval mode without gradients and left exactly as it was.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments. MACs are those of one forward
            pass of them, so pass a single example to count per example.

    Raises:
        UnsupportedModel: the model has no parameters, or does not run on the example.
    """
    args, kwargs = call_arguments(example_inputs)
    if not any(parameter.numel() for parameter in model.parameters()):
        raise UnsupportedModel(
            f"expected a network with parameters, got a {type(model).__name__} without any. Pass the trained module."
        )
    recorder = Recorder()
    recorder.register(model)
    for leaf in tree_leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor):
            recorder.record(leaf, fresh(leaf.shape, "model input"))
    with evaluating(model), torch.no_grad(), _running_module(model) as stack:
        try:
            with _Trace(recorder, stack):
                output = model(*args, **kwargs)
        except Exception as error:
            shapes = [tuple(leaf.shape) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            raise UnsupportedModel(
                f"expected {type(model).__name__} to run on the example inputs of shapes {shapes}, "
                f"got {type(error).__name__}: {error}"
            ) from error
    recorder.note_outputs(output)
    return assemble(model, recorder)


def call_arguments(example_inputs: Examples) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as positional and keyword arguments."""
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    return tuple(example_inputs), {}


@contextlib.contextmanager
def _running_module(model: nn.Module) -> Iterator[list[str]]:
    """A stack of module names with the running one on top; the hooks it takes are removed again."""
    stack = [""]
    hooks = []

    def leave(*_: object) -> None:  # a hook that returned something would replace the module's output
        stack.pop()

    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: stack.append(name), prepend=True))
        hooks.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield stack
    finally:
        for hook in hooks:
            hook.remove()


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Passes every operator call to its rule."""

    def __init__(self, recorder: Recorder, stack: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder
        self.stack = stack

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        schema = func._schema
        arguments = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        arguments |= dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
        call = Call(schema.name.removeprefix("aten::"), arguments, output, self.stack[-1])
        self.recorder.note_uses(call)
        axes = None
        rule = find_rule(func)
        if rule is None:
            self._freeze(call)
        else:
            axes = rule(self.recorder, call)
        self._record(call, axes)
        return output

    def _freeze(self, call: Call) -> None:
        if call.tensors:  # a tensor made from nothing has nothing to freeze
            self.recorder.uncounted[call.operator] = None
            self.recorder.freeze(call.tensors, f"no rule for {call.where}")

    def _record(self, call: Call, axes: Axes | None) -> None:
        outputs = [leaf for leaf in tree_leaves(call.output) if isinstance(leaf, torch.Tensor)]
        for index, tensor in enumerate(outputs):
            if index == 0 and axes is not None:
                self.recorder.record(tensor, axes)
            elif not self.recorder.knows(tensor):  # an operator in place returns a tensor known already
                self.recorder.record(tensor, fresh(tensor.shape, f"made by {call.where}"))
