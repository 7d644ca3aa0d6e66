"""Shorter examples for calls with long sequences of tokens, for checks that need not see all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.compare import outputs
from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example
from autoprune.prune.passes.site import CallSite
from autoprune.prune.passes.watch import Route

TOKENS = 256  # longer sequences are shortened to this


def shortened(model: nn.Module, examples: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[str, ...]]:
    """The calls, those with long sequences shortened, and a note about each of these.

    A call is shortened if its tensors are integers or booleans of one shape (sequences, tokens), and if the model then
    runs the same operators at the same places in the same order. So code that depends on the length, such as a window
    of attention, leaves a call as it is.
    """
    made: list[Example] = []
    notes: list[str] = []
    for example in examples:
        short = _shorter(model, example)
        made.append(example if short is None else short)
        if short is not None:
            notes.append(
                f"Call {example.name!r} was verified on the first {TOKENS} of its {_tokens(example):,} tokens, which "
                "run the same operators."
            )
    return tuple(made), tuple(notes)


def _shorter(model: nn.Module, example: Example) -> Example | None:
    if _tokens(example) <= TOKENS or any(tensor.is_meta for tensor in named_tensors(model).values()):
        return None
    short = example.converted(lambda tensor: tensor[:, :TOKENS].clone())
    try:
        return short if _route(model, short) == _route(model, example) else None
    except UnsupportedModel:  # which the analysis of the whole call reports, if it is not the length
        return None


def _tokens(example: Example) -> int:
    """The length of the sequences of a call that has no other tensors; else 0."""
    tensors = tensors_of((example.args, dict(example.kwargs)), caches=True)
    shapes = {tensor.shape for tensor in tensors}
    if len(shapes) != 1 or any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        return 0
    (shape,) = shapes
    return shape[1] if len(shape) == 2 else 0


def _route(model: nn.Module, example: Example) -> tuple[list[tuple[str, str, int]], Counter[CallSite]]:
    """The operators that a call runs in eval mode, in order, and their sites."""
    route = Route()
    outputs(copy_model(model, share=True), example, route)
    return route.steps, route.visits
