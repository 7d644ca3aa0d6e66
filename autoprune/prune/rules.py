"""How operators relate the axes of their tensors: one short function per kind of operator.

A rule gets the recorder and the call, relates axes by unification, and returns the axes of the (first) output.
Operators that act position by position carry PyTorch's `pointwise` tag and share one rule. MACs count one fused
multiply-add once; operators that only add, compare or scale count none, the field's usual convention.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from autoprune.prune.axes import (
    Axis,
    concatenate,
    factor,
    freeze,
    fresh,
    nest,
    one,
    size,
    unify,
)
from autoprune.prune.recorder import Axes, Call, Contraction, Recorder

Rule = Callable[[Recorder, Call], Axes]


def find_rule(func: Any) -> Rule | None:
    """The rule of an ATen overload, or None."""
    name = func._schema.name.removeprefix("aten::")
    known = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if known is None and torch.Tag.pointwise in func.tags:
        return pointwise
    return known


def convolution(recorder: Recorder, call: Call) -> Axes:
    """Contracts the input's channels with the weight's, group by group: channels = groups x positions."""
    x, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"]
    inputs, kernel = recorder.axes(x), recorder.axes(weight)
    transposed = call["transposed"]
    # a convolution's weight is (out, in / groups, k...), a transposed one's (in, out / groups, k...)
    group, inside = factor(inputs[1], groups, call.where)
    weight_group, rest = factor(kernel[0], groups, call.where)
    if groups > 1:
        unify(group, weight_group, call.where)
    contracted, made = (rest, kernel[1]) if transposed else (kernel[1], rest)
    unify(inside, contracted, call.where)
    channels = nest((group, made)) if transposed else kernel[0]
    for axis in (*inputs[2:], *kernel[2:]):
        freeze(axis, "spatial")
    recorder.mark(weight, "out", 1 if transposed else 0)
    if size(inside) > 1:  # a depthwise filter runs along its channels and contracts none
        recorder.mark(weight, "in", 0 if transposed else 1)
    elif size(made) == 1:
        recorder.mark(weight, "along", 0)
    if bias is not None:
        unify(recorder.axes(bias)[0], channels, call.where)
    recorder.keep_sizes(weight, in_channels=inputs[1], out_channels=channels, groups=group)
    recorder.made_by(call.output, weight)
    positions = math.prod((x if transposed else call.output).shape[2:]) * math.prod(weight.shape[2:])
    recorder.contractions.append(Contraction(call.module, positions, (inputs[0], group, inside, made)))
    return (inputs[0], channels, *fresh(call.shape[2:], "spatial"))


def batch_norm(recorder: Recorder, call: Call) -> Axes:
    """Identifies every parameter and statistic with the channel axis."""
    axes = recorder.axes(call["input"])
    beside = [call.arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    for tensor in beside:
        if tensor is not None:
            unify(recorder.axes(tensor)[0], axes[1], call.where)
            recorder.keep_sizes(tensor, num_features=axes[1])
    module, maker = recorder.owner(next((t for t in beside if t is not None), None)), recorder.maker(call["input"])
    if module is not None and maker is not None:
        recorder.batch_norms[maker] = module
    return axes


def linear(recorder: Recorder, call: Call) -> Axes:
    inputs, weight = recorder.axes(call["input"]), call["weight"]
    out, contracted = recorder.axes(weight)
    unify(inputs[-1], contracted, call.where)
    recorder.mark(weight, "out", 0)
    recorder.mark(weight, "in", 1)
    return _product(recorder, call, (*inputs[:-1], contracted, out), weight, call["bias"])


def addmm(recorder: Recorder, call: Call) -> Axes:
    return _matmul(recorder, call, call["mat1"], call["mat2"], call["self"])


def mm(recorder: Recorder, call: Call) -> Axes:
    return _matmul(recorder, call, call["self"], call["mat2"], None)


def _matmul(recorder: Recorder, call: Call, left: Any, right: Any, bias: Any) -> Axes:
    """(n, k) by (k, m): contracts k. Either side may be a (transposed) weight."""
    (rows, contracted), (also, columns) = recorder.axes(left), recorder.axes(right)
    unify(contracted, also, call.where)
    if recorder.owner(left) is None and recorder.owner(right) is None:
        freeze(contracted, f"{call.where} contracts it between two activations")
    recorder.mark(right, "in", 0)
    recorder.mark(right, "out", 1)
    recorder.mark(left, "in", 1)
    recorder.mark(left, "out", 0)
    return _product(recorder, call, (rows, contracted, columns), right, bias)


def _product(recorder: Recorder, call: Call, axes: Axes, weight: Any, bias: Any) -> Axes:
    """Bookkeeping of a matrix product with axes (..., contracted, out)."""
    *rest, contracted, out = axes
    if bias is not None:
        for added, made in zip(reversed(recorder.axes(bias)), (out, *reversed(rest)), strict=False):
            if size(added) == size(made):  # otherwise it is broadcast
                unify(added, made, call.where)
    recorder.keep_sizes(weight, in_features=contracted, out_features=out)
    recorder.made_by(call.output, weight)
    recorder.contractions.append(Contraction(call.module, 1, axes))
    return (*rest, out)


def pointwise(recorder: Recorder, call: Call) -> Axes:
    """Identifies the dimensions of all operands position by position, aligned from the right; size 1 broadcasts."""
    shape = call.shape
    result: list[Axis] = []
    for back in range(len(shape), 0, -1):
        operands = [t for t in call.tensors if t.dim() >= back and t.shape[-back] == shape[-back]]
        axes = [recorder.axes(tensor)[-back] for tensor in operands]
        for other in axes[1:]:
            unify(axes[0], other, call.where)
        result.append(axes[0])
    return tuple(result)


def unchanged(recorder: Recorder, call: Call) -> Axes:
    recorder.alias(call.output, call["self"])
    return recorder.axes(call["self"])


def spatial(recorder: Recorder, call: Call) -> Axes:
    """Pooling and resampling in the plane: the last two dimensions are mixed, those before them pass."""
    axes = recorder.axes(call["self"])
    for axis in axes[-2:]:
        freeze(axis, "spatial")
    return (*axes[:-2], *fresh(call.shape[-2:], "spatial"))


def mean(recorder: Recorder, call: Call) -> Axes:
    """Averaging over an axis depends on all its positions: it is frozen."""
    axes = recorder.axes(call["self"])
    rank = len(axes)
    dims = {dim % rank for dim in call.arguments.get("dim") or range(rank)}  # no or empty `dim` is all of them
    for dim in dims:
        freeze(axes[dim], f"averaged over by {call.where}")
    kept = [one() if dim in dims else axis for dim, axis in enumerate(axes)]
    return tuple(axis for dim, axis in enumerate(kept) if call.arguments.get("keepdim") or dim not in dims)


def view(recorder: Recorder, call: Call) -> Axes:
    """Matches the shortest runs of dimensions with equal products: each run is merged, then split row-major."""
    axes = list(recorder.axes(call["self"]))
    target = list(call.shape)
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


def permute(recorder: Recorder, call: Call) -> Axes:
    axes = recorder.axes(call["self"])
    recorder.alias(call.output, call["self"])
    if "dims" in call.arguments:
        return tuple(axes[dim] for dim in call["dims"])
    first, second = call.arguments.get("dim0", 0), call.arguments.get("dim1", 1)  # aten::t has neither
    order = list(range(len(axes)))
    if len(order) > 1:
        order[first], order[second] = order[second], order[first]
    return tuple(axes[dim] for dim in order)


def expand(recorder: Recorder, call: Call) -> Axes:
    axes, shape = recorder.axes(call["self"]), call.shape
    padded = (*(one() for _ in range(len(shape) - len(axes))), *axes)
    return tuple(a if size(a) == n else fresh((n,), "expanded")[0] for a, n in zip(padded, shape, strict=True))


def cat(recorder: Recorder, call: Call) -> Axes:
    parts = [recorder.axes(tensor) for tensor in call["tensors"] if tensor.shape != (0,)]  # torch skips empty ones
    joined = call["dim"] % len(parts[0])
    for other in parts[1:]:
        for dim, (a, b) in enumerate(zip(parts[0], other, strict=True)):
            if dim != joined:
                unify(a, b, call.where)
    return tuple(
        concatenate([axes[dim] for axes in parts]) if dim == joined else axis for dim, axis in enumerate(parts[0])
    )


def pad(recorder: Recorder, call: Call) -> Axes:
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


def slice_(recorder: Recorder, call: Call) -> Axes:
    """Taking all of a dimension changes nothing; taking a part of it freezes it."""
    axes = list(recorder.axes(call["self"]))
    dim = call["dim"] % len(axes)
    if call.shape[dim] != size(axes[dim]):
        freeze(axes[dim], f"sliced by {call.where}")
        axes[dim] = fresh((call.shape[dim],), "sliced")[0]
    return tuple(axes)


def restride(recorder: Recorder, call: Call) -> Axes:
    """Renaming the strides of a dense tensor, as pooling to one pixel does in channels-last; all else is frozen."""
    axes = recorder.axes(call["self"])
    if tuple(map(size, axes)) == tuple(call.shape) and call.output.squeeze().is_contiguous():
        return axes
    recorder.freeze(call["self"], f"strided by {call.where}")
    return fresh(call.shape, f"strided by {call.where}")


RULES: dict[str, Rule] = {
    "as_strided": restride,
    "convolution": convolution,
    "native_batch_norm": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "cudnn_batch_norm": batch_norm,
    "linear": linear,
    "addmm": addmm,
    "mm": mm,
    "_prelu_kernel": pointwise,
    "hardswish": pointwise,  # in place these two carry no tag
    "mish": pointwise,
    "clone": unchanged,
    "_to_copy": unchanged,
    "detach": unchanged,
    "alias": unchanged,
    "lift_fresh": unchanged,
    "max_pool2d_with_indices": spatial,
    "avg_pool2d": spatial,
    "_adaptive_avg_pool2d": spatial,
    "adaptive_max_pool2d": spatial,
    "upsample_nearest2d": spatial,
    "upsample_bilinear2d": spatial,
    "mean": mean,
    "view": view,
    "_unsafe_view": view,
    "squeeze": view,
    "unsqueeze": view,
    "permute": permute,
    "transpose": permute,
    "t": permute,
    "expand": expand,
    "cat": cat,
    "constant_pad_nd": pad,
    "slice": slice_,
}
