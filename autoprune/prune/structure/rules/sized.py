"""Functions that take sizes: the size that a forward computed for a dimension determines the dimension's axis.

These intercept torch's Python interface, before sizes become plain integers. The axes of the results are already known
from the rules of the underlying operators; here they are related to the requested sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from autoprune.prune.structure.axes import Axis, concatenate, cut_axis, factor, size, unify
from autoprune.prune.structure.recorder import OperatorCall, Recorder
from autoprune.prune.structure.sizes import Size

Sized = Callable[[Recorder, OperatorCall, tuple[Any, ...], dict[str, Any]], Any]
SIZED: dict[str, Sized] = {}
_FORMS = ("{}", "{}_", "__{}__", "__r{}__", "__i{}__")
ARITHMETIC = [form.format(name) for name in ("mul", "div", "truediv", "add", "sub", "pow") for form in _FORMS]


def sized(*names: str) -> Callable[[Sized], Sized]:
    def register(function: Sized) -> Sized:
        SIZED.update(dict.fromkeys(names, function))
        return function

    return register


def find_sized(function: Any) -> Sized | None:
    """The function that relates sizes in a call of torch's Python interface to axes; None if there is none."""
    if function == torch.Tensor.shape.__get__:  # type: ignore[attr-defined]  # a getter has no name of its own
        return shape
    return SIZED.get(getattr(function, "__name__", ""))


def shape(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The lengths of a tensor's dimensions, which remember their axes."""
    lengths = recorder.sizes.length
    return torch.Size([lengths(a, n) for a, n in zip(recorder.axes(args[0]), call.output, strict=True)])


@sized("size")
def size_of(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(call.output, torch.Size):
        return shape(recorder, call, args, kwargs)
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    return recorder.sizes.length(recorder.axes(args[0])[dim], call.output)


@sized("numel", "nelement")
def number_of_elements(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    total = 1
    for axis in recorder.axes(args[0]):
        total = total * recorder.sizes.length(axis, size(axis))
    return total


@sized(*ARITHMETIC)
def computed(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Arithmetic of a tensor with a size."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Size):
            recorder.sizes.as_number(value)
    return call.output


@sized("view", "reshape", "expand")
def reshaped(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = kwargs.get("shape", kwargs.get("size", _listed(args[1:])))
    if all(isinstance(n, int) for n in given):  # view(dtype) takes no size
        for length, axis in zip(reversed(given), reversed(recorder.axes(call.output)), strict=False):
            if length != -1:
                recorder.sizes.require(length, axis, call.where)
    return call.output


@sized("unflatten")
def unflattened(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dim = _argument(args, kwargs, 1, "dim") % args[0].dim()
    for length, axis in zip(_argument(args, kwargs, 2, "sizes"), recorder.axes(call.output)[dim:], strict=False):
        if length != -1:
            recorder.sizes.require(length, axis, call.where)
    return call.output


@sized("view_as", "reshape_as", "expand_as")
def as_another(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for axis, other in zip(recorder.axes(call.output), recorder.axes(args[1]), strict=True):
        unify(axis, other, call.where)
    return call.output


@sized("zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full", "new_empty")
def created_sizes(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """All positions are equal: any may be removed, as many as the size says."""
    given = args[1:] if call.operator.startswith("new_") else args
    sizes = kwargs.get("size", _listed(given[:1] if given and not isinstance(given[0], int | torch.Tensor) else given))
    if len(sizes) == call.output.dim():
        recorder.record(call.output, tuple(recorder.sizes.axis(n, call.where) for n in sizes))
    return call.output


@sized("histc", "one_hot")
def counted(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As many bins as there are positions that the integers denote."""
    bins = _argument(args, kwargs, 1, "bins" if "histc" in call.operator else "num_classes", -1)
    if (places := recorder.places(args[0])) is not None and bins == size(places):
        recorder.record(call.output, (*recorder.axes(call.output)[:-1], places))
        recorder.sizes.require(bins, places, call.where)
    return call.output


@sized("repeat", "tile")
def repeated(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    times = kwargs.get("repeats", kwargs.get("dims", _listed(args[1:])))
    for count, axis in zip(reversed(times), reversed(recorder.axes(call.output)), strict=False):
        if count > 1:
            recorder.sizes.require(count, factor(axis, int(count), call.where)[0], call.where)
    return call.output


@sized("split", "split_with_sizes", "unsafe_split")
def split_sizes(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = args[1] if len(args) > 1 else next(kwargs[n] for n in kwargs if n.startswith("split_size"))
    dim = _argument(args, kwargs, 2, "dim", 0)
    pieces = [recorder.axes(output)[dim] for output in call.output]
    lengths = [given] * len(pieces) if isinstance(given, int) else given
    for length, piece in zip(lengths, pieces, strict=True):
        if size(piece) == length:  # the last one may be smaller
            recorder.sizes.require(length, piece, call.where)
    return call.output


@sized("chunk", "tensor_split")
def chunk(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Pieces of equal size, which must stay equal: they lose the same positions."""
    dim = _argument(args, kwargs, 2, "dim", 0)
    first, *others = [recorder.axes(output)[dim] for output in call.output]
    for other in others:
        unify(first, other, f"{call.where} into equal pieces,")
    return call.output


@sized("narrow")
def narrow(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dim = _argument(args, kwargs, 1, "dim")
    start, length = _argument(args, kwargs, 2, "start"), _argument(args, kwargs, 3, "length")
    if isinstance(start, int):
        _bounded(recorder, call, recorder.axes(args[0])[dim], start, start + length)
    return call.output


@sized("__getitem__")
def item(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Slices of dimensions: the parts before, inside and behind have the sizes given by the bounds."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    consumed = [_dimensions(part) for part in index]
    dim = 0
    for place, (part, taken) in enumerate(zip(index, consumed, strict=True)):
        if part is Ellipsis:
            dim = args[0].dim() - sum(consumed[place + 1 :])
            continue
        if isinstance(part, slice) and part.step in (None, 1):
            _bounded(recorder, call, recorder.axes(args[0])[dim], part.start, part.stop)
        dim += taken
    return call.output


@sized("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution_sizes(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    groups = _argument(args, kwargs, 6, "groups", 1)
    if groups > 1:
        spatial = int(call.operator[-2])
        channels = recorder.axes(args[0])[-spatial - 1]
        recorder.sizes.require(groups, factor(channels, int(groups), call.where)[0], call.where)
    return call.output


@sized("layer_norm", "rms_norm")
def layer_norm_sizes(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = _argument(args, kwargs, 1, "normalized_shape")
    for length, axis in zip(reversed(given), reversed(recorder.axes(call.output)), strict=False):
        recorder.sizes.require(length, axis, call.where)
    return call.output


@sized("group_norm")
def group_norm_sizes(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    groups = _argument(args, kwargs, 1, "num_groups")
    recorder.sizes.require(groups, factor(recorder.axes(args[0])[1], int(groups), call.where)[0], call.where)
    return call.output


@sized("repeat_interleave")
def repeat_interleave(recorder: Recorder, call: OperatorCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Repeats each position several times in a row."""
    count, dim = _argument(args, kwargs, 1, "repeats"), _argument(args, kwargs, 2, "dim", None)
    if isinstance(count, int) and dim is not None:
        whole, axes = recorder.axes(call.output)[dim], list(recorder.axes(args[0]))
        outer, inner = factor(whole, size(axes[dim]), call.where)
        unify(outer, axes[dim], call.where)
        recorder.sizes.require(count, inner, call.where)
    return call.output


def _bounded(recorder: Recorder, call: OperatorCall, axis: Axis, start: int | None, stop: int | None) -> None:
    whole = size(axis)
    first, last = (_place(bound, default, whole) for bound, default in ((start, 0), (stop, whole)))
    if not (isinstance(start, int | None) and isinstance(stop, int | None)) or first >= last:
        return
    pieces = dict(zip(("front", "inside", "back"), _three(axis, first, last, call.where), strict=True))
    for bound, before, behind in ((start, ("front",), ("inside", "back")), (stop, ("front", "inside"), ("back",))):
        left, right = (concatenate([p for p in map(pieces.get, names) if p is not None]) for names in (before, behind))
        if bound is not None and size(left) and size(right):
            recorder.sizes.require(bound if bound >= 0 else -bound, left if bound >= 0 else right, call.where)


def _three(axis: Axis, first: int, last: int, where: str) -> list[Axis | None]:
    """The parts before, between and behind two boundaries; None for an empty one."""
    boundaries = sorted({0, first, last, size(axis)})
    pieces = iter(cut_axis(axis, boundaries, where))
    spans = ((0, first), (first, last), (last, size(axis)))
    return [next(pieces) if end > start else None for start, end in spans]


def _place(bound: Any, default: int, whole: int) -> int:
    if not isinstance(bound, int):
        return default
    return max(0, min(whole, int(bound) + (whole if bound < 0 else 0)))


def _dimensions(part: Any) -> int:
    """The number of a tensor's dimensions that one part of an index takes."""
    if part is None or part is Ellipsis or isinstance(part, bool):
        return 0
    if isinstance(part, torch.Tensor) and part.dtype in (torch.bool, torch.uint8):
        return part.dim()
    return 1


def _listed(given: Sequence[Any]) -> Sequence[Any]:
    """Sizes as a list, whether given one by one or as one list."""
    return given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, *default: Any) -> Any:
    if len(args) > place:
        return args[place]
    return kwargs[name] if name in kwargs or not default else default[0]
