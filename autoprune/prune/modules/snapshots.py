"""Snapshots of the state of objects, to detect and undo the changes of a run."""

from __future__ import annotations

import contextlib
import types
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from autoprune.prune.modules.reach import cell_content, namespace_of, reached

Holder = dict[Any, Any] | list[Any] | set[Any] | deque[Any]


class Snapshot:
    """The contents of everything that can be reached from a root: containers, attributes, closures and tensors.

    The values of parameters, the bulk of a model, are included only with `parameters`.
    """

    def __init__(self, root: object, limit: int | None = None, *, parameters: bool = False) -> None:
        self._contents: list[tuple[Holder, Holder]] = []
        self._cells: list[tuple[types.CellType, Any]] = []
        self._tensors: list[tuple[torch.Tensor, torch.Tensor]] = []
        for _, value in reached(root, limit).values():
            self._contents += [(holder, _plain(holder)) for holder in _holders(value)]
            if isinstance(value, types.FunctionType):
                self._cells += [(cell, cell_content(cell)) for cell in value.__closure__ or ()]
            elif isinstance(value, torch.Tensor) and (parameters or not isinstance(value, nn.Parameter)):
                self._tensors.append((value, value.detach().clone()))

    @property
    def changed(self) -> bool:
        """Whether anything has changed since."""
        return (
            any(not _same(holder, before) for holder, before in self._contents)
            or any(cell_content(cell) is not before for cell, before in self._cells)
            or any(not same_values(tensor, before) for tensor, before in self._tensors)
        )

    def restore(self) -> None:
        """Undoes changes; unchanged objects are not touched."""
        for holder, before in self._contents:
            if not _same(holder, before):
                _refill(holder, before)
        for cell, before in self._cells:
            if cell_content(cell) is not before:
                cell.cell_contents = before
        for tensor, values in self._tensors:
            if not same_values(tensor, values):
                tensor.data.copy_(values)


@contextlib.contextmanager
def preserved(root: object, *, parameters: bool = False) -> Iterator[None]:
    """Restores everything that the root keeps afterwards, also after an exception; see Snapshot."""
    snapshot = Snapshot(root, parameters=parameters)
    try:
        yield
    finally:
        snapshot.restore()


def same_values(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors have equal shapes and values, with NaN in the same places."""
    if left.shape != right.shape or left.is_meta:
        return left.shape == right.shape
    return torch.equal(left, right) or bool(((left == right) | ((left != left) & (right != right))).all())


def _holders(value: Any) -> Iterator[Holder]:
    if isinstance(value, dict | list | set | deque):
        yield value
    names = namespace_of(value)
    if names is not None:
        yield names
    if isinstance(value, nn.Module) and names is not None:
        yield from (part for name in ("_parameters", "_buffers", "_modules") if isinstance(part := names[name], dict))


def _plain(holder: Holder) -> Holder:
    """The contents as a plain container, whatever a subclass does when it is copied."""
    if isinstance(holder, dict):
        return dict(dict.items(holder))  # bypasses a subclass's own access methods
    return next(kind(holder) for kind in (list, set, deque) if isinstance(holder, kind))


def _same(holder: Holder, before: Holder) -> bool:
    if len(holder) != len(before):
        return False
    if isinstance(holder, set):
        return {id(part) for part in holder} == {id(part) for part in before}
    left, right = (dict.items(h) if isinstance(h, dict) else enumerate(h) for h in (holder, before))
    pairs = zip(left, right, strict=True)
    return all(a is b or (isinstance(a, int | str) and a == b) for (_, a), (_, b) in pairs) and (
        not isinstance(holder, dict) or not isinstance(before, dict) or list(holder) == list(before)
    )


def _refill(holder: Holder, before: Holder) -> None:
    holder.clear()
    add: Any = holder.update if isinstance(holder, dict | set) else holder.extend
    add(before)
