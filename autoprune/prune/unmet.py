"""Parameters that no pass has read, and what must stay whole for their sake.

Which tensors such a parameter meets when it is used is unknown; so everything that has the size of one of its
dimensions stays as it is. Then whatever runs it later finds tensors of the sizes it was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from autoprune.prune.axes import freeze, size
from autoprune.prune.recorder import Recorder
from autoprune.prune.structure import Unmet


def find_unmet(model: nn.Module, recorder: Recorder) -> tuple[Unmet, ...]:
    """The parameters that no operator has read so far, each by its first name."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return tuple(
        Unmet(name, tuple(parameter.shape), parameter.numel() / total)
        for name, parameter in model.named_parameters()
        if name not in recorder.met and parameter.numel()
    )


def freeze_for(model: nn.Module, recorder: Recorder, unmet: tuple[Unmet, ...]) -> None:
    """Freezes every axis that has the size of a dimension of an unmet parameter."""
    reasons: dict[int, str] = {}
    for name, tensor in [*((row.name, model.get_parameter(row.name)) for row in unmet), *_statistics(model, recorder)]:
        for length in _lengths(model.get_submodule(name.rpartition(".")[0]), tensor):
            reasons.setdefault(
                length,
                f"no example call runs {name!r}, which has a dimension of this size: give a call that runs it, or "
                "remove it from the model",
            )
    for axis in list(recorder.seen.values()):
        if size(axis) in reasons:
            freeze(axis, reasons[size(axis)])


def _statistics(model: nn.Module, recorder: Recorder) -> Iterator[tuple[str, torch.Tensor]]:
    """The running means of norms without parameters that did not run."""
    for name, module in model.named_modules():
        if isinstance(module, _NormBase) and not module.affine and module.running_mean is not None:
            key = f"{name}.running_mean" if name else "running_mean"
            if key not in recorder.met:
                yield key, module.running_mean


def _lengths(owner: nn.Module, tensor: torch.Tensor) -> list[int]:
    """The dimensions of a tensor that run along features; of a convolution not those of its kernel."""
    if isinstance(owner, _ConvNd):
        return [owner.in_channels, owner.out_channels]
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag):
        return [owner.embedding_dim]
    return [length for length in tensor.shape if length > 1]
