"""Parameters that no pass has read, and the axes that are frozen because of them.

The tensors that such a parameter is used with are unknown. It is used by the code of its module or of an enclosing one,
so every axis that these have seen and that has the size of one of its dimensions is frozen. Code that runs it later
then finds tensors of the sizes it was trained with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from autoprune.prune.structure.axes import Axis, freeze, size
from autoprune.prune.structure.recorder import Recorder
from autoprune.prune.structure.structure import Unmet


def find_unmet(model: nn.Module, recorder: Recorder) -> tuple[Unmet, ...]:
    """The parameters that no operator has read so far, each by its first name."""
    total = sum(parameter.numel() for parameter in model.parameters())
    return tuple(
        Unmet(name, tuple(parameter.shape), parameter.numel() / total)
        for name, parameter in model.named_parameters()
        if name not in recorder.met and parameter.numel()
    )


@dataclass(frozen=True)
class _Dimension:
    """The size of a dimension that an unmet tensor is used with; `entering` if a layer reads its input there."""

    tensor: str
    module: str
    length: int
    entering: bool = False


def freeze_for(model: nn.Module, recorder: Recorder, unmet: Sequence[Unmet]) -> None:
    """Freezes every axis that code which may run an unmet parameter has seen and that has one of its sizes.

    An input size that none of that code has seen comes from elsewhere, for example through a hook: then all axes of
    that size are frozen, unless an unmet layer produces it.
    """
    dimensions = list(_dimensions(model, recorder, {row.name for row in unmet}))
    made = {dimension.length for dimension in dimensions if not dimension.entering}
    for dimension in dimensions:
        fitting = _axes(recorder, _around(dimension.module), dimension.length)
        if not fitting and dimension.entering and dimension.length not in made:
            fitting = _axes(recorder, recorder.seen, dimension.length)
        for axis in fitting:
            freeze(
                axis,
                f"no example call runs {dimension.tensor!r}, which has a dimension of this size: give a call that runs "
                "it, or remove it from the model",
            )


def _axes(recorder: Recorder, modules: Iterable[str], length: int) -> list[Axis]:
    return [axis for name in modules for axis in recorder.seen.get(name, {}).values() if size(axis) == length]


def _around(module: str) -> list[str]:
    """A module and all enclosing ones, the model itself last."""
    parts = module.split(".") if module else []
    return [".".join(parts[:count]) for count in range(len(parts), -1, -1)]


def _dimensions(model: nn.Module, recorder: Recorder, unmet: set[str]) -> Iterator[_Dimension]:
    """The sizes of features, also of norms without parameters, under every name of a module."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    for name, module in model.named_modules(remove_duplicate=False):
        for tensor in module.parameters(recurse=False):
            if first[id(tensor)] in unmet:
                yield from _of_tensor(first[id(tensor)], name, module, tuple(tensor.shape))
        if isinstance(module, _NormBase) and not module.affine and name not in recorder.seen:
            yield _Dimension(name, name, module.num_features)


def _of_tensor(tensor: str, name: str, module: nn.Module, shape: Sequence[int]) -> Iterator[_Dimension]:
    if isinstance(module, _ConvNd):
        yield _Dimension(tensor, name, module.in_channels, entering=True)
        yield _Dimension(tensor, name, module.out_channels)
    elif isinstance(module, nn.Linear) and len(shape) == 2:
        yield _Dimension(tensor, name, module.in_features, entering=True)
        yield _Dimension(tensor, name, module.out_features)
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        yield _Dimension(tensor, name, module.embedding_dim)
    else:
        yield from (_Dimension(tensor, name, length) for length in shape if length > 1)
