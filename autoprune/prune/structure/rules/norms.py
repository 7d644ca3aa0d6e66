"""Normalisations, reductions and softmax: they run over positions, so that removing some differs from masking them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from autoprune.prune.structure.axes import cut_axis, factor, freeze, fresh, nest, one, size, unify
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules.elementwise import pointwise
from autoprune.prune.structure.rules.registry import rule


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
)
def batch_norm(recorder: Recorder, call: OperatorCall) -> Axes:
    """Identifies every parameter and statistic with the channel axis."""
    axes = recorder.axes(call["input"])
    beside = [call.arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    for tensor in beside:
        if tensor is not None:
            unify(recorder.axes(tensor)[0], axes[1], call.where)
            recorder.keep_sizes(call, tensor, num_features=axes[1])
    if call.arguments.get("training"):  # statistics of this tensor itself, as in weight standardisation
        for dim in (dim for dim in range(len(axes)) if dim != 1):
            recorder.reduce(call, "input", dim, axes[dim])
    module, maker = recorder.owner(next((t for t in beside if t is not None), None)), recorder.maker(call["input"])
    if module is not None and maker is not None:
        recorder.batch_norms[maker] = module
    return axes


@rule("native_layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(recorder: Recorder, call: OperatorCall) -> Axes:
    """Normalises over the last dimensions, each with its scale and shift."""
    axes = recorder.axes(call["input"])
    first = len(axes) - len(call["normalized_shape"])
    for dim in range(first, len(axes)):
        for name in ("weight", "bias"):
            if call.arguments.get(name) is not None:
                unify(recorder.axes(call[name])[dim - first], axes[dim], call.where)
        recorder.reduce(call, "input", dim, axes[dim])
    return axes


@rule("native_group_norm")
def group_norm(recorder: Recorder, call: OperatorCall) -> Axes:
    """Channels = groups x positions: removing whole groups changes nothing else, removing positions the statistics."""
    axes = recorder.axes(call["input"])
    group, inside = factor(axes[1], call["group"], call.where)
    channels = nest((group, inside))
    for name in ("weight", "bias"):
        if call.arguments.get(name) is not None:
            unify(recorder.axes(call[name])[0], channels, call.where)
    recorder.keep_sizes(call, call.arguments.get("weight"), num_channels=channels, num_groups=group)
    recorder.read(call, "input", 1, channels)
    recorder.normalised.append(inside)
    return axes


@rule("_softmax", "_log_softmax", "softmax", "log_softmax", "_safe_softmax", "cumsum", "cumprod", "logcumsumexp")
def along_one(recorder: Recorder, call: OperatorCall) -> Axes:
    """A value for each position that depends on all others."""
    axes = recorder.axes(call["self"])
    dim = call["dim"] % max(len(axes), 1)
    recorder.reduce(call, "self", dim, axes[dim])
    return axes


@rule("_weight_norm_interface")
def weight_norm(recorder: Recorder, call: OperatorCall) -> Axes:
    """v scaled to the length g: one length for every position along `dim`, over all other dimensions."""
    axes = recorder.axes(call["v"])
    for dim, (axis, scale) in enumerate(zip(axes, recorder.axes(call["g"]), strict=True)):
        if size(scale) == size(axis):
            unify(scale, axis, call.where)
        else:
            recorder.reduce(call, "v", dim, axis)
    return axes


@rule(
    *("mean", "sum", "nansum", "prod", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "logsumexp"),
    *("any", "all", "count_nonzero"),
)
def reduction(recorder: Recorder, call: OperatorCall) -> Axes:
    """One value for all positions of some dimensions."""
    axes = recorder.axes(call["self"])
    dims = _reduced(call, len(axes))
    for dim in dims:
        recorder.reduce(call, "self", dim, axes[dim])
    return _without(axes, dims, call)


@rule("var_mean", "std_mean")
def two_reductions(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    return [reduction(recorder, call)] * 2


@rule("cummax", "cummin")
def cumulated(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """The largest value so far at each position, and its index."""
    axes = along_one(recorder, call)
    recorder.tell_places(call, call.outputs[1], axes[call["dim"] % max(len(axes), 1)])
    return [axes, axes]


@rule("max", "min", "median", "nanmedian", "mode")
def chosen(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """One position's value out of all, over a dimension together with its index, or over all dimensions."""
    if "other" in call.arguments:  # the larger of two tensors
        return [pointwise(recorder, call)]
    axes = reduction(recorder, call)
    return [axes, *(_told(recorder, call, places, axes) for places in call.outputs[1:])]


@rule("aminmax")
def two_chosen(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    return [reduction(recorder, call)] * 2


@rule("argmax", "argmin")
def place(recorder: Recorder, call: OperatorCall) -> Axes:
    """The index of the largest or the smallest value."""
    return _told(recorder, call, call.outputs[0], reduction(recorder, call))


@rule("kthvalue")
def kth(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """The k-th smallest value and its index: at least k positions must stay."""
    (dim,) = _reduced(call, len(recorder.axes(call["self"])))
    recorder.least.append((recorder.axes(call["self"])[dim], int(call["k"])))
    return chosen(recorder, call)


@rule("topk")
def largest(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """The k largest values and their indices: at least k positions must stay."""
    axes = list(recorder.axes(call["self"]))
    dim = call["dim"] % len(axes)
    recorder.reduce(call, "self", dim, axes[dim])
    recorder.least.append((axes[dim], call["k"]))
    recorder.name_places(call.outputs[1], axes[dim])
    axes[dim] = fresh((call["k"],), f"as many as {call.where} chooses")[0]
    return [tuple(axes), tuple(axes)]


@rule("sort", "msort", "argsort")
def ordered(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """Positions sorted by value: each rank has a meaning of its own, so the dimension is frozen."""
    axes = recorder.axes(call["self"])
    for dim in _reduced(call, len(axes)):
        freeze(axes[dim], f"sorted by {call.where}")
    return [axes for _ in call.outputs]


@rule("flip")
def flipped(recorder: Recorder, call: OperatorCall) -> Axes:
    axes = recorder.axes(call["self"])
    for dim in _reduced(call, len(axes)):
        freeze(axes[dim], f"reversed by {call.where}")
    return axes


def _told(recorder: Recorder, call: OperatorCall, places: torch.Tensor, axes: Axes) -> Axes:
    """The axes of integers that denote places along the reduced dimensions."""
    inputs = recorder.axes(call["self"])
    for dim in _reduced(call, len(inputs)):
        recorder.tell_places(call, places, inputs[dim])
    return axes


def _reduced(call: OperatorCall, rank: int) -> set[int]:
    dims = call.arguments.get("dims", call.arguments.get("dim"))
    if isinstance(dims, int):
        dims = [dims]
    return {dim % rank for dim in dims or range(rank)}  # no or empty `dim` is all of them


def _without(axes: Axes, dims: Iterable[int], call: OperatorCall) -> Axes:
    kept = [one() if dim in dims else axis for dim, axis in enumerate(axes)]
    return tuple(axis for dim, axis in enumerate(kept) if call.arguments.get("keepdim") or dim not in dims)


@rule("glu")
def glu(recorder: Recorder, call: OperatorCall) -> Axes:
    """Two halves, the first multiplied by the sigmoid of the second: they lose the same positions."""
    axes = list(recorder.axes(call["self"]))
    dim = call["dim"] % len(axes)
    half = call.shape[dim]
    axes[dim], gate = cut_axis(axes[dim], [0, half, 2 * half], call.where)
    unify(axes[dim], gate, call.where)
    return tuple(axes)
