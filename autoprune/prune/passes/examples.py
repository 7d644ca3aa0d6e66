"""Example inputs: one call of the model, or several, in any of the forms that users give them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.names import numbered
from autoprune.prune.passes.containers import copied, tensors_of

if TYPE_CHECKING:
    from autoprune.prune.passes.watch import Watch

_FORMS = ". A tuple holds the positional arguments of one call, a dict its keyword arguments, a list several examples."
Inputs = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments


@dataclass(frozen=True)
class Example:
    """One call of a model: the method that is called, its arguments, and a name to tell it from other calls."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    method: str = "forward"
    name: str = ""

    def inputs(self) -> Inputs:
        """The arguments, a copy for one run: a forward may change what it is given."""
        return copied((tuple(self.args), dict(self.kwargs)))

    def converted(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Example:
        """The same call on what `convert` makes of each tensor."""
        args, kwargs = copied((tuple(self.args), dict(self.kwargs)), convert)
        return replace(self, args=args, kwargs=kwargs)

    def run(self, model: nn.Module, inputs: Inputs | None = None, watch: Watch | None = None) -> Any:
        """The model's output for the call, or for a copy of its inputs. UnsupportedModel when it does not run.

        A watch is told when a method other than forward starts and ends; of forward it learns from the model's hooks.
        """
        args, kwargs = self.inputs() if inputs is None else inputs
        if not callable(getattr(model, self.method, None)):
            raise UnsupportedModel(
                f"expected {type(model).__name__} to have a method {self.method!r} to call, it has none"
            )
        try:
            if self.method == "forward":
                return model(*args, **kwargs)
            function = functools.partial(getattr(model, self.method), *args, **kwargs)
            return function() if watch is None else _told(watch, (args, kwargs), function)
        except Exception as error:
            raise UnsupportedModel(self._failure(model, error)) from error

    def _failure(self, model: nn.Module, error: Exception) -> str:
        shapes = [tuple(tensor.shape) for tensor in tensors_of((self.args, dict(self.kwargs)))]
        called = type(model).__name__ + ("" if self.method == "forward" else f".{self.method}")
        return (
            f"expected {called} to run on the example inputs of shapes {shapes}, got {type(error).__name__}: {error}"
            f"{'' if self._fits(model) else _FORMS}"
        )

    def _fits(self, model: nn.Module) -> bool:
        """Whether the method takes these arguments, as far as its signature tells."""
        try:
            inspect.signature(getattr(model, self.method)).bind(*self.args, **self.kwargs)
        except TypeError:
            return False
        except ValueError:  # it has no signature
            return True
        return True


Form = torch.Tensor | tuple[Any, ...] | Mapping[str, Any] | Example  # of one call
Examples = Form | list[Any] | Mapping[str, Example]


def call(*args: Any, method: str = "forward", **kwargs: Any) -> Example:
    """One call of a model, for `example_inputs`: positional and keyword arguments, and the method they are for.

    >>> find_structure(model, {"image": call(x, method="encode_image"), "text": call(ids, method="encode_text")})
    """
    return Example(args, kwargs, method)


def as_examples(example_inputs: Examples | Sequence[Example]) -> tuple[Example, ...]:
    """The calls that example inputs stand for, each with a name of its own.

    A single call and the calls of a list are named after their method, with a number where several share one.
    UnsupportedModel for an empty list.
    """
    if isinstance(example_inputs, Mapping) and _are_examples(example_inputs.values()):
        return tuple(replace(example, name=str(name)) for name, example in example_inputs.items())
    several = isinstance(example_inputs, list) or (isinstance(example_inputs, tuple) and _are_examples(example_inputs))
    examples = [_as_example(form) for form in (cast(Iterable[Any], example_inputs) if several else [example_inputs])]
    if not examples:
        raise UnsupportedModel("expected example inputs, got an empty list. Give at least one example.")
    return tuple(_named(examples))


def _as_example(form: Any) -> Example:
    if isinstance(form, Example):
        return form
    if isinstance(form, Mapping):
        return Example((), dict(form))
    return Example(tuple(form) if isinstance(form, tuple) else (form,))


def _are_examples(values: Collection[Any]) -> bool:
    return bool(values) and all(isinstance(value, Example) for value in values)


def _named(examples: Sequence[Example]) -> list[Example]:
    """Each example with a name of its own; those that have one keep it."""
    names = numbered([example.name or example.method for example in examples])
    return [replace(example, name=name) for example, name in zip(examples, names, strict=True)]


def _told(watch: Watch, inputs: Inputs, function: Any) -> Any:
    watch.entered("", inputs)
    output = None
    try:
        output = function()
        return output
    finally:
        watch.left(output)
