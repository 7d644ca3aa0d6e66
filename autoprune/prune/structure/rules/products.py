"""Matrix products and convolutions: they contract an axis of the input with one of the weight.

MACs count one fused multiply-add once; operators that only add, compare or scale count none, the field's usual
convention. Products of two activations (attention) count like those with a weight.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from autoprune.prune.structure.axes import Axis, factor, freeze, fresh, nest, size, unify
from autoprune.prune.structure.recorder import Axes, Contraction, OperatorCall, Recorder
from autoprune.prune.structure.rules.registry import rule


@rule("convolution")
def convolution(recorder: Recorder, call: OperatorCall) -> Axes:
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
        recorder.read(call, "input", 1, inputs[1])
    elif size(made) == 1:
        recorder.mark(weight, "along", 0)
    if not recorder.is_weight(weight):
        recorder.mark_computed(call, weight, (0, 1) if transposed else (1, 0))
    if bias is not None:
        unify(recorder.axes(bias)[0], channels, call.where)
    recorder.convolved += [inputs[1], channels]
    recorder.keep_sizes(call, weight, in_channels=inputs[1], out_channels=channels, groups=group)
    recorder.made_by(call.output, weight)
    positions = math.prod((x if transposed else call.output).shape[2:]) * math.prod(weight.shape[2:])
    recorder.contractions.append(Contraction(call.module, positions, (inputs[0], group, inside, made)))
    return (inputs[0], channels, *fresh(call.shape[2:], "spatial"))


@rule("linear")
def linear(recorder: Recorder, call: OperatorCall) -> Axes:
    inputs, weight = recorder.axes(call["input"]), call["weight"]
    out, contracted = recorder.axes(weight)
    unify(inputs[-1], contracted, call.where)
    recorder.read(call, "input", len(inputs) - 1, contracted)
    return _product(recorder, call, (*inputs[:-1], contracted, out), (None, weight), (None, (1, 0)), call["bias"])


@rule("addmm")
def addmm(recorder: Recorder, call: OperatorCall) -> Axes:
    return _matmul(recorder, call, "mat1", "mat2", call["self"])


@rule("mm")
def mm(recorder: Recorder, call: OperatorCall) -> Axes:
    return _matmul(recorder, call, "self", "mat2", None)


@rule("mv", "dot", "vdot")
def mv(recorder: Recorder, call: OperatorCall) -> Axes:
    """(n, k) by (k,), or (k,) by (k,)."""
    left, right = call["self"], call.arguments.get("vec", call.arguments.get("tensor", call.arguments.get("other")))
    *rest, contracted = recorder.axes(left)
    (also,) = recorder.axes(right)
    unify(contracted, also, call.where)
    recorder.read(call, "self", len(rest), contracted)
    _note_weights(recorder, contracted, ((left, (len(rest), 0 if rest else None)), (right, (0, None))))
    recorder.contractions.append(Contraction(call.module, 1, (*rest, contracted)))
    return tuple(rest)


def _matmul(recorder: Recorder, call: OperatorCall, left: str, right: str, bias: Any) -> Axes:
    """(n, k) by (k, m): contracts k. Either side may be a (transposed) weight."""
    (rows, contracted), (also, columns) = recorder.axes(call[left]), recorder.axes(call[right])
    unify(contracted, also, call.where)
    recorder.read(call, left, 1, contracted)
    factors = (call[left], call[right])
    return _product(recorder, call, (rows, contracted, columns), factors, ((1, 0), (0, 1)), bias)


@rule("bmm")
def bmm(recorder: Recorder, call: OperatorCall) -> Axes:
    return _batched(recorder, call, "self", "mat2", None)


@rule("baddbmm")
def baddbmm(recorder: Recorder, call: OperatorCall) -> Axes:
    return _batched(recorder, call, "batch1", "batch2", call["self"])


def _batched(recorder: Recorder, call: OperatorCall, left: str, right: str, bias: Any) -> Axes:
    """(b, n, k) by (b, k, m): contracts k for every b."""
    batch, rows, contracted = recorder.axes(call[left])
    other, also, columns = recorder.axes(call[right])
    unify(batch, other, call.where)
    unify(contracted, also, call.where)
    recorder.read(call, left, 2, contracted)
    if any(recorder.is_stack(call[name]) for name in (left, right)):
        recorder.routed.append(batch)
    factors = (call[left], call[right])
    return _product(recorder, call, (batch, rows, contracted, columns), factors, ((2, 1), (1, 2)), bias)


@rule("_grouped_mm", "transformers::grouped_mm_fallback")
def grouped_mm(recorder: Recorder, call: OperatorCall) -> Axes:
    """(s, k) by (e, k, m): every row meets one of e matrices, given by offsets, as tokens meet their experts."""
    left, right = ("self", "mat2") if "self" in call.arguments else ("input", "weight")
    x, weight = call[left], call[right]
    (rows, contracted), (experts, also, columns) = recorder.axes(x), recorder.axes(weight)
    unify(contracted, also, call.where)
    unify(recorder.axes(call["offs"])[0], experts, call.where)
    recorder.read(call, left, 1, contracted)
    recorder.routed.append(experts)
    aligned = 16 // weight.element_size()  # the kernel requires rows of a multiple of 16 bytes
    recorder.multiples += [(contracted, aligned), (columns, aligned)]
    return _product(recorder, call, (rows, contracted, columns), (x, weight), (None, (1, 2)), None)


@rule("scaled_dot_product_attention")
def attention(recorder: Recorder, call: OperatorCall) -> Axes:
    """softmax(q k^T) v for (..., h, l, e), (..., h, s, e), (..., h, s, v); with grouped queries q has several h a k."""
    query, key, value = (recorder.axes(call[name]) for name in ("query", "key", "value"))
    for mine, other in zip(key[:-1], value[:-1], strict=True):
        _unify_broadcast(mine, other, call.where)
    for dim, (mine, other) in enumerate(zip(query[:-2], key[:-2], strict=True)):
        grouped = call.arguments.get("enable_gqa") and dim == len(query) - 3
        _unify_broadcast(factor(mine, size(other), call.where)[0] if grouped else mine, other, call.where)
    unify(query[-1], key[-1], call.where)
    note = recorder.read if call.arguments.get("scale") else recorder.reduce  # the default is a power of the size
    for name, axis in (("query", query[-1]), ("key", key[-1])):
        note(call, name, len(query) - 1, axis)
    for name in ("key", "value"):
        recorder.reduce(call, name, len(query) - 2, key[-2])
    if (mask := call.arguments.get("attn_mask")) is not None:
        scores = (*query[:-1], key[-2])
        for mine, other in zip(reversed(recorder.axes(mask)), reversed(scores), strict=False):
            _unify_broadcast(mine, other, call.where)
    recorder.attended += [query[-1], value[-1]]
    recorder.batched += query[:-2]
    for inner in (query[-1], value[-1]):
        recorder.contractions.append(Contraction(call.module, 1, (*query[:-1], key[-2], inner)))
    return (*query[:-1], value[-1])


def _product(
    recorder: Recorder,
    call: OperatorCall,
    axes: Axes,
    factors: tuple[Any, Any],
    dims: tuple[tuple[int, int] | None, tuple[int, int]],
    bias: Any,
) -> Axes:
    """Records a product with axes (..., contracted, out) of two factors; `dims` are their (contracted, made)."""
    *rest, contracted, out = axes
    if bias is not None:
        for added, made in zip(reversed(recorder.axes(bias)), (out, *reversed(rest)), strict=False):
            _unify_broadcast(added, made, call.where)
    left, right = factors
    if recorder.is_weight(left) or recorder.is_weight(right):
        _note_weights(recorder, contracted, zip(factors, dims, strict=True))
    else:
        recorder.mark_computed(call, right, dims[1])
        recorder.attended += [contracted, out]
        recorder.batched += rest[:-1] if left is not None else ()
    recorder.keep_sizes(call, right, in_features=contracted, out_features=out)
    recorder.made_by(call.output, right)
    recorder.contractions.append(Contraction(call.module, 1, axes))
    return (*rest, out)


def _unify_broadcast(mine: Axis, other: Axis, where: str) -> None:
    """Unifies two axes unless one of them has size 1 and is broadcast."""
    if size(mine) == size(other):
        unify(mine, other, where)


def _note_weights(recorder: Recorder, contracted: Axis, factors: Iterable[tuple[Any, Any]]) -> None:
    """Marks the dimensions that weights contract and make, given as (contracted, made).

    If both factors are computed from weights, as for a norm, no input is contracted: the result depends on all
    positions, like that of a normalisation.
    """
    factors = list(factors)
    if all(recorder.is_weight(weight) for weight, _ in factors):
        recorder.normalised.append(contracted)
    for weight, dims in factors:
        if dims is not None:
            recorder.mark(weight, "in", dims[0])
            if dims[1] is not None:
                recorder.mark(weight, "out", dims[1])
