"""Pooling, resampling and neighbourhoods: trailing dimensions are mixed, leading ones pass through."""

from __future__ import annotations

import math
import re

from autoprune.prune.structure.axes import factor, freeze, fresh, nest, size
from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder
from autoprune.prune.structure.rules.registry import rule


@rule(
    *("avg_pool2d", "avg_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d"),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool3d", "max_pool1d", "avg_pool1d"),
    *("fractional_max_pool2d", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d"),
    *("replication_pad2d", "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d"),
    *("_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d"),
    *("upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "grid_sampler_2d", "max_pool2d"),
)
def spatial(recorder: Recorder, call: OperatorCall) -> Axes | list[Axes]:
    """Mixes as many trailing dimensions as the operator's name says."""
    digits = re.search(r"(\d)d", call.operator.replace("grid_sampler_2d", "2d"))
    mixed = int(digits.group(1)) if digits else 2
    axes = recorder.axes(call.tensors[0])
    for axis in axes[-mixed:]:
        freeze(axis, "spatial")
    result = (*axes[:-mixed], *fresh(call.shape[-mixed:], "spatial"))
    return [result for _ in call.outputs]


@rule("pixel_shuffle")
def pixel_shuffle(recorder: Recorder, call: OperatorCall) -> Axes:
    """Channels = kept channels x r x r; the blocks of r x r become pixels."""
    *rest, channels, height, width = recorder.axes(call["self"])
    kept, block = factor(channels, call.shape[-3], call.where)
    for axis in (block, height, width):
        freeze(axis, "spatial")
    return (*rest, kept, *fresh(call.shape[-2:], "spatial"))


@rule("pixel_unshuffle")
def pixel_unshuffle(recorder: Recorder, call: OperatorCall) -> Axes:
    *rest, channels, height, width = recorder.axes(call["self"])
    for axis in (height, width):
        freeze(axis, "spatial")
    (block,) = fresh((call["downscale_factor"] ** 2,), "spatial")
    return (*rest, nest((channels, block)), *fresh(call.shape[-2:], "spatial"))


@rule("im2col")
def im2col(recorder: Recorder, call: OperatorCall) -> Axes:
    """(n, c, h, w) to (n, c x kernel positions, places)."""
    *rest, channels, height, width = recorder.axes(call["self"])
    for axis in (height, width):
        freeze(axis, "spatial")
    kernel, places = fresh((math.prod(call["kernel_size"]), call.shape[-1]), "spatial")
    return (*rest, nest((channels, kernel)), places)


@rule("col2im")
def col2im(recorder: Recorder, call: OperatorCall) -> Axes:
    """(n, c x kernel positions, places) to (n, c, h, w)."""
    *rest, columns, places = recorder.axes(call["self"])
    channels, kernel = factor(columns, size(columns) // math.prod(call["kernel_size"]), call.where)
    for axis in (kernel, places):
        freeze(axis, "spatial")
    return (*rest, channels, *fresh(call.shape[-2:], "spatial"))
