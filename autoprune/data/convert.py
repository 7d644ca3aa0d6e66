"""Converts a caller's arrays, tensors or loader items to checked batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from autoprune.errors import DataError
from autoprune.measure.batch import Batch

Array = np.ndarray[Any, Any] | torch.Tensor

_CLASS_INDEX = (torch.uint8, torch.int8, torch.int16, torch.int32)


def to_tensor(values: object, where: str) -> torch.Tensor:
    """A copy on the CPU, so that later changes of the original do not reach the sets."""
    if isinstance(values, torch.Tensor):
        copy = values.detach().cpu().clone(memory_format=torch.contiguous_format)
    else:
        copy = _from_numpy(values, where)
    if copy.ndim == 0:
        raise DataError(f"{where}: expected an array whose first dimension counts examples, got a single number")
    return copy


def _from_numpy(values: object, where: str) -> torch.Tensor:
    try:
        array = np.array(values, order="C")
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:  # ragged lists, strings, objects
        raise DataError(
            f"{where}: expected a numeric numpy array or tensor, got {type(values).__name__} ({error})"
        ) from error


def to_target(values: object, where: str) -> torch.Tensor:
    """Labels as a tensor; integers become int64, the type that losses and comparisons with argmax expect."""
    target = to_tensor(values, where)
    if target.ndim == 2 and target.shape[1] == 1 and not target.is_floating_point():
        raise DataError(
            f"{where}: expected one class index per example, shape ({len(target)},), got {tuple(target.shape)}. "
            "Pass labels.ravel()."
        )
    return target.long() if target.dtype in _CLASS_INDEX else target


def check_whole(name: str, value: object, least: int) -> None:
    """Raises DataError unless a value is a whole number of at least `least`."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise DataError(f"expected {name} as a whole number of at least {least}, got {value!r}")


def to_batches(
    name: str, columns: Sequence[object], batch_size: int, *, labelled: bool, group: object = None
) -> tuple[Batch, ...]:
    """Whole arrays as batches in their order, the last one possibly smaller.

    `columns` are the inputs and, if `labelled`, the target as the last one; all of n examples. `group` has the group of
    each example.
    """
    if labelled and len(columns) < 2:
        raise DataError(
            f"{name}: expected inputs and, as the last array, their targets, got {len(columns)} array(s). "
            f"Pass {name}=(x, y)."
        )
    count = len(columns) - labelled
    inputs = tuple(to_tensor(x, f"{name}[{i}]") for i, x in enumerate(columns[:count]))
    target = to_target(columns[-1], f"{name}[{count}]") if labelled else None
    lengths = [len(x) for x in (*inputs, *([] if target is None else [target]))]
    if not lengths or len(set(lengths)) != 1:
        raise DataError(f"{name}: expected arrays of one length, one row an example, got lengths {lengths}")
    groups = None if group is None else to_group(group, f"groups[{name!r}]", lengths[0])
    return tuple(_slices(inputs, target, groups, batch_size))


def to_group(values: object, where: str, count: int) -> torch.Tensor:
    """(n,) the groups of n examples, whole numbers from 0, as int64. DataError if they are anything else."""
    group = to_tensor(values, where)
    whole = group.dtype in (torch.int64, torch.bool, *_CLASS_INDEX)
    if not whole or group.ndim != 1 or bool((group < 0).any()):
        got = f"shape {tuple(group.shape)} of {str(group.dtype).removeprefix('torch.')}"
        low = f" from {int(group.min())} on" if whole and group.ndim == 1 else ""
        raise DataError(f"{where}: expected one whole number from 0 on for each example, got {got}{low}")
    if len(group) != count:
        raise DataError(f"{where}: expected a group for each of the {count} examples, got {len(group)} groups")
    return group.long()


def _slices(
    inputs: tuple[torch.Tensor, ...], target: torch.Tensor | None, group: torch.Tensor | None, batch_size: int
) -> Iterator[Batch]:
    for start in range(0, len(inputs[0]), batch_size):
        rows = slice(start, start + batch_size)
        own_target, own_group = (None if x is None else x[rows] for x in (target, group))
        yield Batch(tuple(x[rows] for x in inputs), own_target, group=own_group)


def as_columns(values: object) -> Sequence[object]:
    """The arrays of one set; a single array or tensor becomes one column."""
    return values if isinstance(values, tuple | list) else (values,)


def to_batch(item: object, where: str, *, labelled: bool) -> Batch:
    """A loader's item as a batch: a Batch, a tensor, or a tuple or list, of several tensors with the target last.

    If `labelled` is False, the target is dropped.

    Raises:
        DataError: the item is anything else.
    """
    inputs, target = _take_apart(item, where)
    if labelled and target is None:
        raise DataError(f"{where}: expected inputs and a target, got inputs alone. Let the loader yield (x, y).")
    tensors = tuple(to_tensor(x, f"{where}, input {i}") for i, x in enumerate(inputs))
    group = item.group if isinstance(item, Batch) else None
    found = None if group is None else to_group(group, f"{where}, group", len(tensors[0]))
    return Batch(tensors, to_target(target, f"{where}, target") if labelled else None, group=found)


def _take_apart(item: object, where: str) -> tuple[Sequence[object], object | None]:
    if isinstance(item, Batch):
        return item.inputs, item.target
    if isinstance(item, np.ndarray | torch.Tensor):
        return (item,), None
    if isinstance(item, tuple | list) and item:
        return (item[:-1], item[-1]) if len(item) > 1 else (item, None)
    raise DataError(
        f"{where}: expected a tensor, a tuple (x, ..., y), a dictionary or an autoprune Batch, got "
        f"{type(item).__name__}. "
        "Wrap the loader in a generator that yields such tuples."
    )
