"""Indexing: the indexed dimension stays whole, the others pass through."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autoprune.prune.structure.axes import Axis, freeze, fresh, size, unify
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules.registry import rule


@rule("embedding")
def embedding(recorder: Recorder, call: OperatorCall) -> Axes:
    """Rows of the weight, which are the vocabulary and belong to the caller."""
    rows, features = recorder.axes(call["weight"])
    freeze(rows, f"looked up by {call.where}")
    recorder.mark(call["weight"], "out", 1)
    recorder.keep_sizes(call, call["weight"], embedding_dim=features)
    recorder.made_by(call.output, call["weight"])
    return (*recorder.axes(call["indices"]), features)


@rule("index_select")
def index_select(recorder: Recorder, call: OperatorCall) -> Axes:
    axes = list(recorder.axes(call["self"]))
    dim = call["dim"] % len(axes)
    freeze(axes[dim], f"indexed by {call.where}")
    axes[dim] = fresh((call.shape[dim],), f"indexed by {call.where}")[0]
    return tuple(axes)


@rule("index")
def index(recorder: Recorder, call: OperatorCall) -> Axes:
    """x[i, :, j]: indexed dimensions are replaced by those of the indices, in place if adjacent, else first.

    Indices known to denote positions of an axis follow it; all others freeze the dimension.
    """
    axes = recorder.axes(call["self"])
    indexed = _indexed(call["indices"])
    for dim, tensor in indexed.items():
        places = recorder.places(tensor)
        if places is None:
            freeze(axes[dim], f"indexed by {call.where}")
        else:
            unify(places, axes[dim], call.where)
    passing = [axis for dim, axis in enumerate(axes) if dim not in indexed]
    first, last = min(indexed), max(indexed)
    before = first if len(indexed) == last - first + 1 else 0
    made = fresh(call.shape[before : before + len(call.shape) - len(passing)], f"indexed by {call.where}")
    return (*passing[:before], *made, *passing[before:])


@rule("index_add", "index_copy", "index_fill", "scatter_add", "scatter", "gather", "take_along_dim")
def along(recorder: Recorder, call: OperatorCall) -> Axes:
    """Looks up or writes places along one dimension; the other dimensions are related if their sizes are equal."""
    axes = list(recorder.axes(call["self"]))
    dim = call["dim"] % len(axes)
    freeze(axes[dim], f"indexed by {call.where}")
    for tensor in call.tensors[1:]:
        others = recorder.axes(tensor)
        if len(others) == len(axes):
            freeze(others[dim], f"indexed by {call.where}")
            for place, (mine, other) in enumerate(zip(axes, others, strict=True)):
                if place != dim:
                    _same(mine, other, call.where)
    made = fresh(call.shape, f"indexed by {call.where}")
    return tuple(a if size(a) == n else new for a, n, new in zip(axes, call.shape, made, strict=True))


@rule("index_put", "_index_put_impl")
def index_put(recorder: Recorder, call: OperatorCall) -> Axes:
    """Writes values at the indexed places; the other dimensions are those of the values."""
    axes = recorder.axes(call["self"])
    indexed = _indexed(call["indices"])
    for dim in indexed:
        freeze(axes[dim], f"indexed by {call.where}")
    passing = [axis for dim, axis in enumerate(axes) if dim not in indexed]
    for mine, other in zip(reversed(passing), reversed(recorder.axes(call["values"])), strict=False):
        _same(mine, other, call.where)
    return axes


@rule("nonzero", "unique_consecutive", "_unique2", "histc", "bincount")
def positions(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """The output denotes places: every dimension is frozen."""
    recorder.freeze(call["self"], f"positions told by {call.where}")
    return [fresh(output.shape, f"made by {call.where}") for output in call.outputs]


def _same(mine: Axis, other: Axis, where: str) -> None:
    """Unifies axes of equal size; if the sizes differ only a part is used, and both are frozen."""
    if size(mine) == size(other):
        unify(mine, other, where)
    else:
        freeze(mine, f"partly indexed by {where}")
        freeze(other, f"partly indexed by {where}")


def _indexed(indices: Sequence[torch.Tensor | None]) -> dict[int, torch.Tensor]:
    """The dimensions that indices apply to, each with its index; a mask covers as many as it has."""
    found: dict[int, torch.Tensor] = {}
    dim = 0
    for tensor in indices:
        covered = tensor.dim() if tensor is not None and tensor.dtype in (torch.bool, torch.uint8) else 1
        if tensor is not None:
            found |= dict.fromkeys(range(dim, dim + covered), tensor)
        dim += covered
    return found
