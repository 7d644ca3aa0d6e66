"""Sequences of different lengths: padded to one tensor, packed into the rows of all time steps, and unpacked."""

from __future__ import annotations

from autoprune.prune.structure.axes import freeze, fresh, unify
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules.registry import rule


@rule("pad_sequence")
def pad_together(recorder: Recorder, call: OperatorCall) -> Axes:
    """Pads sequences of different lengths at the end into one tensor; features pass through."""
    (_, *features), *others = [recorder.axes(tensor) for tensor in call["sequences"]]
    for other in others:
        for mine, also in zip(features, other[1:], strict=True):
            unify(mine, also, call.where)
    for tensor in call["sequences"]:
        freeze(recorder.axes(tensor)[0], f"padded by {call.where}")
    return (*fresh(call.shape[:2], "padded sequences"), *features)


@rule("_pack_padded_sequence")
def packed_axes(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """Padded sequences become the concatenated rows of all time steps; features pass through."""
    sequences, (steps,) = recorder.axes(call["input"]), fresh(call.outputs[1].shape, "time steps of packed sequences")
    for axis in sequences[:2]:
        freeze(axis, f"packed by {call.where}")
    (rows,) = fresh((call.shape[0],), "rows of packed sequences")
    return [(rows, *sequences[2:]), (steps,)]


@rule("_pad_packed_sequence")
def unpacked_axes(recorder: Recorder, call: OperatorCall) -> list[Axes]:
    """The rows of packed sequences become padded sequences again; features pass through."""
    rows, *features = recorder.axes(call["data"])
    freeze(rows, "rows of packed sequences")
    return [
        (*fresh(call.shape[:2], "padded sequences"), *features),
        *(fresh(output.shape, "lengths of packed sequences") for output in call.outputs[1:]),
    ]
