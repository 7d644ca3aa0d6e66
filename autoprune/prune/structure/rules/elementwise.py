"""Operators that work position by position, or change nothing."""

from __future__ import annotations

from autoprune.prune.structure.axes import Axis, fresh, unify
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules.registry import rule


# PyTorch tags operators of this kind; the named ones lack the tag
@rule(
    *("pointwise", "_prelu_kernel", "hardswish", "mish", "where", "masked_fill", "copy", "clamp_min", "clamp_max"),
    *("lerp", "floor_divide", "bernoulli", "native_dropout", "dropout", "fill", "zero", "nan_to_num"),
)
def pointwise(recorder: Recorder, call: OperatorCall) -> Axes:
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


@rule(
    *("clone", "_to_copy", "detach", "alias", "lift_fresh", "lift_fresh_copy", "contiguous", "_conj", "resolve_conj"),
    *("zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like"),
)
def unchanged(recorder: Recorder, call: OperatorCall) -> Axes:
    recorder.alias(call.output, call["self"])
    return recorder.axes(call["self"])


@rule("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided")
def created(recorder: Recorder, call: OperatorCall) -> Axes:
    """A tensor with only the dtype and device of its argument; computed sizes are related in sized.py."""
    return fresh(call.shape, f"made by {call.where}")
