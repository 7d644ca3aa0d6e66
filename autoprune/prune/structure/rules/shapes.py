"""Operators that rearrange: views, permutations, concatenation, cutting, padding, repetition."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise

from autoprune.prune.structure.axes import (
    Atom,
    Axis,
    concatenate,
    cut_axis,
    factor,
    freeze,
    fresh,
    nest,
    one,
    size,
    unify,
)
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules.registry import rule


@rule("view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "_reshape_alias", "view_copy", "flatten", "unflatten")
def view(recorder: Recorder, call: OperatorCall) -> Axes:
    """Matches the shortest runs of dimensions with equal products: each run is merged, then split row-major."""
    axes = list(recorder.axes(call["self"]))
    target = list(call.shape)
    if 0 in target:
        return fresh(target, f"made empty by {call.where}")
    result: list[Axis] = []
    while target or axes:
        run: list[Axis] = [axes.pop(0)] if axes else [one()]
        wanted = [target.pop(0)] if target else [1]
        while (have := size(nest(run))) != (need := math.prod(wanted)):
            if have < need:
                run.append(axes.pop(0))
            else:
                wanted.append(target.pop(0))
        result += _split(nest(run), wanted, call.where)
    return tuple(result[: len(call.shape)])


def _split(axis: Axis, sizes: list[int], where: str) -> list[Axis]:
    pieces = []
    for length in sizes[:-1]:
        piece, axis = factor(axis, length, where)
        pieces.append(piece)
    return [*pieces, axis]


@rule("permute", "transpose", "t", "movedim", "swapaxes", "numpy_T")
def permute(recorder: Recorder, call: OperatorCall) -> Axes:
    axes = recorder.axes(call["self"])
    recorder.alias(call.output, call["self"])
    if "dims" in call.arguments:
        return tuple(axes[dim] for dim in call["dims"])
    first, second = call.arguments.get("dim0", 0), call.arguments.get("dim1", 1)  # aten::t has neither argument
    order = list(range(len(axes)))
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return tuple(axes[dim] for dim in order)


@rule("expand")
def expand(recorder: Recorder, call: OperatorCall) -> Axes:
    """A dimension of size 1 is repeated: its positions are equal, so any of them may be removed."""
    axes, shape = recorder.axes(call["self"]), call.shape
    padded = (*(one() for _ in range(len(shape) - len(axes))), *axes)
    return tuple(a if size(a) == n else Atom(n) for a, n in zip(padded, shape, strict=True))


@rule("repeat")
def repeat(recorder: Recorder, call: OperatorCall) -> Axes:
    """Concatenates copies of the tensor: a dimension becomes repetitions x positions."""
    axes, times = recorder.axes(call["self"]), call["repeats"]
    padded = (*(one() for _ in range(len(times) - len(axes))), *axes)
    return tuple(nest((Atom(n), a)) if n > 1 else a for a, n in zip(padded, times, strict=True))


@rule("cat", "concat", "concatenate")
def cat(recorder: Recorder, call: OperatorCall) -> Axes:
    parts = [recorder.axes(tensor) for tensor in call["tensors"] if tensor.shape != (0,)]  # torch skips empty tensors
    joined = call["dim"] % len(parts[0])
    for other in parts[1:]:
        for dim, (a, b) in enumerate(zip(parts[0], other, strict=True)):
            if dim != joined:
                unify(a, b, call.where)
    return tuple(
        concatenate([axes[dim] for axes in parts]) if dim == joined else axis for dim, axis in enumerate(parts[0])
    )


@rule("stack")
def stack(recorder: Recorder, call: OperatorCall) -> Axes:
    """The new dimension has a fixed meaning for each of its positions."""
    parts = [recorder.axes(tensor) for tensor in call["tensors"]]
    for other in parts[1:]:
        for a, b in zip(parts[0], other, strict=True):
            unify(a, b, call.where)
    dim = call["dim"] % (len(parts[0]) + 1)
    return (*parts[0][:dim], *fresh((len(parts),), f"stacked by {call.where}"), *parts[0][dim:])


@rule("unbind")
def unbind(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    axes = list(recorder.axes(call["self"]))
    freeze(axes.pop(call["dim"]), f"taken apart by {call.where}")
    return [tuple(axes) for _ in call.outputs]


@rule("select")
def select_position(recorder: Recorder, call: OperatorCall) -> Axes:
    axes = list(recorder.axes(call["self"]))
    freeze(axes.pop(call["dim"]), f"one position chosen by {call.where}")
    return tuple(axes)


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "split_copy", "chunk", "tensor_split")
def split(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    axes = recorder.axes(call["self"])
    dim = call["dim"] % len(axes)
    boundaries = [0, *accumulate(output.shape[dim] for output in call.outputs)]
    pieces = _pieces(axes[dim], boundaries, call.where)
    return [(*axes[:dim], piece, *axes[dim + 1 :]) for piece in pieces]


def _pieces(axis: Axis, boundaries: list[int], where: str) -> list[Axis]:
    """The pieces between boundaries, some of which may coincide."""
    whole = iter(cut_axis(axis, sorted(set(boundaries)), where))
    return [next(whole) if end > start else Atom(0, "empty") for start, end in pairwise(boundaries)]


@rule("slice", "narrow")
def slice_(recorder: Recorder, call: OperatorCall) -> Axes:
    """A part of a dimension; every k-th position of it is one factor of a product with k."""
    axes = list(recorder.axes(call["self"]))
    dim, length, whole = call["dim"] % len(axes), call.shape[call["dim"]], size(axes[call["dim"]])
    if length == whole:
        return tuple(axes)
    if (step := call.arguments.get("step", 1)) != 1:
        axes[dim] = _strided(axes[dim], step, length, f"strided by {call.where}")
        return tuple(axes)
    start = call["start"] or 0
    start = min(start + whole if start < 0 else start, whole)
    axes[dim] = _pieces(axes[dim], [0, start, start + length, whole], call.where)[1]
    return tuple(axes)


def _strided(axis: Axis, step: int, length: int, where: str) -> Axis:
    if step * length != size(axis):
        freeze(axis, where)
        return fresh((length,), where)[0]
    outer, inner = factor(axis, length, where)
    freeze(inner, where)
    return outer


@rule("constant_pad_nd")
def pad(recorder: Recorder, call: OperatorCall) -> Axes:
    """Padding makes a sum with frozen parts; cropping (a negative pad) cuts and is frozen."""
    axes = list(recorder.axes(call["self"]))
    amounts = call["pad"]  # (last dim before, after, second to last before, after, ...)
    for index in range(len(amounts) // 2):
        before, after = amounts[2 * index : 2 * index + 2]
        dim = len(axes) - 1 - index
        if before < 0 or after < 0:
            freeze(axes[dim], f"cropped by {call.where}")
            axes[dim] = fresh((call.shape[dim],), "cropped")[0]
        elif before or after:
            axes[dim] = concatenate([*fresh((before,), "padded in"), axes[dim], *fresh((after,), "padded in")])
    return tuple(axes)


@rule("as_strided")
def restride(recorder: Recorder, call: OperatorCall) -> Axes:
    """New strides of a dense tensor, as pooling to one pixel makes in channels-last; everything else is frozen."""
    axes = recorder.axes(call["self"])
    if tuple(map(size, axes)) == tuple(call.shape) and call.output.squeeze().is_contiguous():
        return axes
    recorder.freeze(call["self"], f"strided by {call.where}")
    return fresh(call.shape, f"strided by {call.where}")


@rule("roll")
def roll(recorder: Recorder, call: OperatorCall) -> Axes:
    """Shifts positions along some dimensions, which are therefore frozen."""
    axes = recorder.axes(call["self"])
    dims = {dim % len(axes) for dim in call["dims"]} or set(range(len(axes)))
    for dim in dims:
        freeze(axes[dim], f"rolled by {call.where}")
    return axes


@rule("unfold")
def unfold(recorder: Recorder, call: OperatorCall) -> Axes:
    """Windows along a dimension: it becomes the number of windows, and their content comes last."""
    axes = list(recorder.axes(call["self"]))
    dim = call["dimension"] % len(axes)
    freeze(axes[dim], f"windows taken by {call.where}")
    axes[dim], inside = fresh((call.shape[dim], call.shape[-1]), f"windows taken by {call.where}")
    return (*axes, inside)
