"""Compares adapters with the classes that they replace, module by module, on the inputs that occur in the model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.errors import PluginError, UnsupportedModel
from autoprune.prune.modules.adapting import adapt
from autoprune.prune.modules.borrowed import evaluating, without_attention_fast_path, without_tf32
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.wrappers import uncompiled
from autoprune.prune.passes.compare import OUTPUT_TOLERANCE, largest_of
from autoprune.prune.passes.containers import copied, tensors_of
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.train_mode import deterministic_training


def check_adapters(model: nn.Module, examples: Sequence[Example]) -> None:
    """Runs every call in both modes and, beside every module that has an adapter, the adapter on the same inputs.

    A call that does not run is ignored here.

    Raises:
        PluginError: an adapter computes something else than its class.
    """
    original, other = copy_model(model, share=True), copy_model(model, share=True)
    problems: list[str] = []
    names = adapt(other)
    for name in names:
        _compare_when_called(name, original.get_submodule(name), other.get_submodule(name), problems)
    for mode in (evaluating, deterministic_training) if names else ():
        for example in examples:
            with _as_proved(), mode(original), mode(other), contextlib.suppress(UnsupportedModel):
                example.run(original)
    if problems:
        raise PluginError(problems[0])


@contextlib.contextmanager
def _as_proved() -> Iterator[None]:
    """Sets the numerical modes under which networks are verified."""
    with torch.no_grad(), without_tf32(), without_attention_fast_path(), uncompiled():
        yield


def _compare_when_called(name: str, module: nn.Module, adapted: nn.Module, problems: list[str]) -> None:
    given: list[Any] = []  # copies of the current arguments, since a forward may change them

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        given.append(copied((args, kwargs)))

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if why := _difference(adapted, given.pop(), output):
            problems.append(
                f"expected the adapter {type(adapted).__name__} to compute what {type(module).__name__} computes; in "
                f"module {name!r}, on the same inputs, {why}. Correct the adapter's forward."
            )

    module.register_forward_pre_hook(before, with_kwargs=True)
    module.register_forward_hook(after, with_kwargs=True)


def _difference(adapted: nn.Module, given: tuple[Any, Any], output: Any) -> str:
    """How the adapter's output on these arguments differs from `output`; empty if it does not."""
    args, kwargs = given
    try:
        found, wanted = tensors_of(adapted(*args, **kwargs)), tensors_of(output)
    except Exception as error:  # a user's forward may raise anything
        return f"it raises {type(error).__name__}: {error}"
    if [tensor.shape for tensor in found] != [tensor.shape for tensor in wanted]:
        shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in (found, wanted)]
        return f"it returns tensors of shapes {shapes[0]} instead of {shapes[1]}"
    difference = largest_of(*_without_common_nan(found, wanted))
    return f"outputs differ by {difference:.2g} relative" if difference > _tolerance(wanted) else ""


def _without_common_nan(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The tensors with zeros where both are NaN, as attention returns for rows that are masked throughout."""
    left, right = list(first), list(second)
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a.shape == b.shape and a.is_floating_point() and b.is_floating_point() and not a.is_meta:
            nothing = a.isnan() & b.isnan()
            left[index], right[index] = a.masked_fill(nothing, 0), b.masked_fill(nothing, 0)
    return left, right


def _tolerance(outputs: Sequence[torch.Tensor]) -> float:
    """The tolerance in the model's own precision, in which adapters run."""
    return max([OUTPUT_TOLERANCE, *(16 * torch.finfo(x.dtype).eps for x in outputs if x.is_floating_point())])
