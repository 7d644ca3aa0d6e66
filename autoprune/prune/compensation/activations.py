"""The tensors that a paused forward pass holds, put away while other passes run.

A pass that is paused keeps every tensor that its frames still refer to. Their storages are emptied while it is paused
and filled again before it goes on, so that views and writes in place stay what they are. Tensors that were not made by
the pass itself, such as parameters, caches of modules and the inputs, are never touched.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

SMALL = 1 << 16  # storages below this number of bytes stay where they are

Restore = Callable[[torch.Tensor], None]  # fills a flat tensor with the values that were put away
PutAway = Callable[[torch.Tensor], Restore]  # keeps the values of a flat tensor somewhere else


def in_half_precision(values: torch.Tensor) -> Restore:
    """Keeps float32 values as float16 in memory; what float16 cannot hold, and other dtypes, without a change."""
    half = values.half() if values.dtype is torch.float32 else values
    kept = half if half is not values and bool(half.isfinite().all()) else values.clone()

    def restore(into: torch.Tensor) -> None:
        into.copy_(kept)

    return restore


def in_host_memory(values: torch.Tensor) -> Restore:
    """Keeps values of an accelerator in the machine's memory, without a change."""
    kept = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.device.type == "cuda")
    kept.copy_(values, non_blocking=True)

    def restore(into: torch.Tensor) -> None:
        into.copy_(kept, non_blocking=True)

    return restore


class OnDisk:
    """Keeps values in files of a folder, without a change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = itertools.count()

    def __call__(self, values: torch.Tensor) -> Restore:
        path, dtype = self._folder / str(next(self._names)), values.dtype
        values.clone().view(torch.uint8).cpu().numpy().tofile(path)  # arrays keep a storage from being resized

        def restore(into: torch.Tensor) -> None:
            into.copy_(torch.from_numpy(np.fromfile(path, np.uint8)).view(dtype))
            path.unlink()

        return restore


class _Away(NamedTuple):
    """A storage that is empty now."""

    owner: Activations
    whole: torch.Tensor  # all of its elements
    nbytes: int
    restore: Restore | None  # None where the values do not matter


Shelf = dict[int, _Away]  # by storage


class Activations:
    """The tensors that one pass has made and that are still alive.

    Args:
        put_away: how their values are kept while the pass is paused; None leaves them where they are.
        shelf: the storages that are empty now, of all passes through the network.
    """

    def __init__(self, put_away: PutAway | None = None, shelf: Shelf | None = None) -> None:
        self._put_away = put_away
        self._shelf: Shelf = {} if shelf is None else shelf
        self._tensors: dict[int, list[weakref.ref[torch.Tensor]]] = {}  # by storage
        self._void: set[int] = set()

    @property
    def nbytes(self) -> int:
        """The number of bytes of the tensors that are alive; tensors without values do not count."""
        return sum(tensor.untyped_storage().nbytes() for key, tensor in self._alive() if key not in self._void)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls an operator and records what it returns: new tensors, and views of such, but not views of others."""
        sources = {storage_of(tensor) for tensor in _stored((args, kwargs))}
        for key in sources & self._shelf.keys():
            self._share(key)
        output = function(*args, **kwargs)
        for tensor in _stored(output):
            key = storage_of(tensor)
            if key in self._tensors and (known := _living(self._tensors[key], key)):
                self._tensors[key] = [*known, weakref.ref(tensor)]
            elif key not in sources:
                self.own(tensor)
        return output

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """Records a new tensor."""
        self._tensors[storage_of(tensor)] = [weakref.ref(tensor)]
        self._void.discard(storage_of(tensor))
        return tensor

    def void(self, tensor: torch.Tensor) -> torch.Tensor:
        """Records a new tensor whose values do not matter."""
        self.own(tensor)
        self._void.add(storage_of(tensor))
        return tensor

    def leave(self) -> None:
        """Puts the values away; the tensors cannot be used until `come_back`."""
        if self._put_away is None:
            return
        for key, tensor in self._alive():
            storage = tensor.untyped_storage()
            if storage.nbytes() >= SMALL and storage.resizable():
                whole = _flat(tensor)
                restore = None if key in self._void else self._put_away(whole)
                self._shelf[key] = _Away(self, whole, storage.nbytes(), restore)
                storage.resize_(0)

    def come_back(self) -> None:
        """Brings the values back."""
        for key in [key for key, away in self._shelf.items() if away.owner is self]:
            _filled(self._shelf.pop(key))

    def _share(self, key: int) -> None:
        """Brings back, for good, what a pass has made and another one uses, as the cache of a module."""
        away = self._shelf.pop(key)
        _filled(away)
        del away.owner._tensors[key]

    def _alive(self) -> list[tuple[int, torch.Tensor]]:
        """The storages that are alive, with one of their tensors; forgets the others."""
        alive = {key: _living(known, key) for key, known in self._tensors.items()}
        self._tensors = {key: known for key, known in alive.items() if known}
        found = ((key, known[0]()) for key, known in self._tensors.items())
        return [(key, tensor) for key, tensor in found if tensor is not None]


def _living(known: list[weakref.ref[torch.Tensor]], key: int) -> list[weakref.ref[torch.Tensor]]:
    """Those that are alive and still on that storage, whose address may have been given to another one."""
    return [one for one in known if (tensor := one()) is not None and storage_of(tensor) == key]


def _filled(away: _Away) -> None:
    away.whole.untyped_storage().resize_(away.nbytes)
    if away.restore is not None:
        away.restore(away.whole)


def _stored(tree: Any) -> list[torch.Tensor]:
    """The tensors in a tree that have a storage."""
    leaves = tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]


def storage_of(tensor: torch.Tensor) -> int:
    """What identifies a tensor's storage while it lives, also while its values are put away."""
    return int(tensor.untyped_storage()._cdata)


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """All elements of a tensor's storage."""
    storage = tensor.untyped_storage()
    count = storage.nbytes() // tensor.element_size()
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return cast(torch.Tensor, whole.set_(storage, 0, (count,)))  # type: ignore[call-overload]
