"""Example inputs: one or several calls of the model, in any of the forms that users pass."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copies import shares_parameters
from autoprune.prune.modules.names import numbered
from autoprune.prune.passes.containers import copied, tensors_of
from autoprune.prune.passes.known import KnownValues, assumed
from autoprune.prune.passes.unwritten import unwritten

if TYPE_CHECKING:
    from autoprune.prune.passes.watch import OperatorWatch

_FORMS = ". A tuple holds the positional arguments of one call, a dict its keyword arguments, a list several examples."
CallInputs = tuple[tuple[Any, ...], dict[str, Any]]  # positional and keyword arguments


@dataclass(frozen=True)
class Example:
    """One call of a model: the method, its arguments, and a name to distinguish it from other calls.

    On the meta device, `values` are those of the tensors among the arguments, in order; None where they are unknown.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    method: str = "forward"
    name: str = ""
    values: tuple[torch.Tensor | None, ...] = ()

    def inputs(self) -> CallInputs:
        """A copy of the arguments for one run, since a forward may change them."""
        return copied((tuple(self.args), dict(self.kwargs)))

    def converted(self, convert: Callable[[torch.Tensor], torch.Tensor]) -> Example:
        """The same call with `convert` applied to each tensor."""
        args, kwargs = copied((tuple(self.args), dict(self.kwargs)), convert)
        return replace(self, args=args, kwargs=kwargs)

    def without_values(self) -> Example:
        """The same call on the meta device, with the values of integers and booleans beside (known.py)."""
        tensors = tensors_of((self.args, dict(self.kwargs)))
        values = [assumed(x) if x.is_meta or x.is_floating_point() or x.is_complex() else x.cpu() for x in tensors]
        return replace(self.converted(lambda tensor: tensor.to("meta")), values=tuple(values))

    def run(self, model: nn.Module, inputs: CallInputs | None = None, watch: OperatorWatch | None = None) -> Any:
        """The model's output for the call, on `inputs` or a copy of its own.

        A watch is told when a method other than forward starts and ends; it observes forward through the model's hooks.
        What the call writes to parameters that the model shares with another network is undone.

        Raises:
            UnsupportedModel: the call does not run.
        """
        args, kwargs = self.inputs() if inputs is None else inputs
        if not callable(getattr(model, self.method, None)):
            raise UnsupportedModel(
                f"expected {type(model).__name__} to have a method {self.method!r} to call, it has none"
            )
        try:
            guard = unwritten(model) if shares_parameters(model) else contextlib.nullcontext()
            with guard, self._knowing((args, kwargs)):
                if self.method == "forward":
                    return model(*args, **kwargs)
                function = functools.partial(getattr(model, self.method), *args, **kwargs)
                return function() if watch is None else _told(watch, (args, kwargs), function)
        except Exception as error:
            raise UnsupportedModel(self._failure(model, error)) from error

    def _knowing(self, inputs: CallInputs) -> contextlib.AbstractContextManager[object]:
        """On the meta device, a context in which values that follow from the inputs' integers can be read."""
        if not self.values:
            return contextlib.nullcontext()
        return KnownValues(zip(tensors_of(inputs), self.values, strict=True))

    def _failure(self, model: nn.Module, error: Exception) -> str:
        shapes = [tuple(tensor.shape) for tensor in tensors_of((self.args, dict(self.kwargs)))]
        called = type(model).__name__ + ("" if self.method == "forward" else f".{self.method}")
        return (
            f"expected {called} to run on the example inputs of shapes {shapes}, got {type(error).__name__}: {error}"
            f"{'' if self._fits(model) else _FORMS}"
        )

    def _fits(self, model: nn.Module) -> bool:
        """Whether the method accepts these arguments, according to its signature."""
        try:
            inspect.signature(getattr(model, self.method)).bind(*self.args, **self.kwargs)
        except TypeError:
            return False
        except ValueError:  # without a signature
            return True
        return True


CallForm = torch.Tensor | tuple[Any, ...] | Mapping[str, Any] | Example  # the forms of one call
Examples = CallForm | list[Any] | Mapping[str, Example]


def call(*args: Any, method: str = "forward", **kwargs: Any) -> Example:
    """One call of a model, for `example_inputs`.

    >>> find_structure(model, {"image": call(x, method="encode_image"), "text": call(ids, method="encode_text")})

    Args:
        *args: positional arguments of the call.
        method: the name of the method to call.
        **kwargs: keyword arguments of the call.

    Returns:
        The call.
    """
    return Example(args, kwargs, method)


def as_examples(example_inputs: Examples | Sequence[Example]) -> tuple[Example, ...]:
    """The calls that example inputs stand for, each with its own name.

    A single call and the calls of a list are named after their method, numbered if several share one.

    Raises:
        UnsupportedModel: the list is empty.
    """
    if isinstance(example_inputs, Mapping) and _are_examples(example_inputs.values()):
        return tuple(replace(example, name=str(name)) for name, example in example_inputs.items())
    several = isinstance(example_inputs, list) or (isinstance(example_inputs, tuple) and _are_examples(example_inputs))
    examples = [_as_example(form) for form in (cast(Iterable[Any], example_inputs) if several else [example_inputs])]
    if not examples:
        raise UnsupportedModel("expected example inputs, got an empty list. Give at least one example.")
    return tuple(_named(examples))


def examples_for(model: nn.Module, example_inputs: Examples) -> tuple[Example, ...]:
    """The calls as `as_examples` makes them, on the meta device if the model is there."""
    examples = as_examples(example_inputs)
    on_meta = any(parameter.is_meta for parameter in model.parameters())
    return tuple(example.without_values() for example in examples) if on_meta else examples


def _as_example(form: Any) -> Example:
    if isinstance(form, Example):
        return form
    if isinstance(form, Mapping):
        return Example((), dict(form))
    return Example(tuple(form) if isinstance(form, tuple) else (form,))


def _are_examples(values: Collection[Any]) -> bool:
    return bool(values) and all(isinstance(value, Example) for value in values)


def _named(examples: Sequence[Example]) -> list[Example]:
    """The examples with unique names; given names are kept."""
    names = numbered([example.name or example.method for example in examples])
    return [replace(example, name=name) for example, name in zip(examples, names, strict=True)]


def _told(watch: OperatorWatch, inputs: CallInputs, function: Any) -> Any:
    watch.entered("", inputs)
    output = None
    try:
        output = function()
        return output
    finally:
        watch.left(output)


def first_examples(batches: Iterable[tuple[torch.Tensor, ...]], count: int) -> list[tuple[torch.Tensor, ...]]:
    """The first `count` examples of batches, in their batches."""
    taken: list[tuple[torch.Tensor, ...]] = []
    for batch in batches:
        if count > 0:
            taken.append(tuple(x[:count] for x in batch))
            count -= len(batch[0])
    return taken
