"""Tensors that share memory: whole ones stay tied in copies and lose the same positions, parts stay unpruned.

Parameters that are one object need no treatment. Handled here are tensors tied through their data (`decoder.weight.data
= encoder.weight.data`), with dimensions in the same or another order, and views of one flat tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.plain import plain_tensors

Dims = tuple[int | None, ...]  # for each dimension of a tensor, the matching one of another; None for size 1


@dataclass(frozen=True)
class Tie:
    """A tensor in the memory of another one, its base: the same entries, or, if `dims` is None, a part of them."""

    base: str
    dims: Dims | None
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int  # in entries from the base's first one

    def view(self, base: torch.Tensor, dense: torch.Size) -> torch.Tensor | None:
        """The tensor as a view of a new base; None for a part of a base that has lost positions.

        `dense` is the shape of the base before it lost any.
        """
        if self.dims is None:
            if base.shape != dense:
                return None
            return base.as_strided(self.shape, self.strides, base.storage_offset() + self.offset)
        single = [dim for dim in range(base.dim()) if dim not in self.dims]
        order = [dim for dim in self.dims if dim is not None]
        result = base.permute(*order, *single).flatten(len(order)) if single else base.permute(order)
        result = result.squeeze(-1) if single else result
        for place, dim in enumerate(self.dims):
            result = result.unsqueeze(place) if dim is None else result
        return result


def find_ties(model: nn.Module) -> dict[str, Tie]:
    """The ties of a model, by the name of the tensor that lies in another one's memory.

    Raises:
        UnsupportedModel: tensors overlap without one of them being inside the other.
    """
    return _ties_among(named_tensors(model), plain_tensors(model))


def _ties_among(named: Mapping[str, torch.Tensor], plain: Mapping[str, torch.Tensor]) -> dict[str, Tie]:
    memories: dict[int, list[str]] = {}
    tensors = {**named, **plain}
    for name, tensor in tensors.items():
        if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel():
            memories.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    ties: dict[str, Tie] = {}
    for names in memories.values():
        # registered tensors come before others, and large ones before small ones
        names.sort(key=lambda name: (name in plain, -_extent(tensors[name])))
        bases: list[str] = []
        for name in names:
            base = next((other for other in bases if _overlap(tensors[other], tensors[name])), None)
            if base is None:
                bases.append(name)
            else:
                ties[name] = _tie(base, name, tensors)
    return ties


def _tie(base: str, name: str, tensors: Mapping[str, torch.Tensor]) -> Tie:
    whole, part = tensors[base], tensors[name]
    offset = part.storage_offset() - whole.storage_offset()
    inside = offset >= 0 and offset + _extent(part) <= _extent(whole)
    if part.dtype != whole.dtype or not inside:
        raise UnsupportedModel(
            f"expected tensors that are identical or share no memory, {base!r} and {name!r} overlap. Give one of "
            "them a copy, as in x.data = x.data.clone(), or make them the same parameter."
        )
    return Tie(base, _same_dims(whole, part) if not offset else None, tuple(part.shape), part.stride(), int(offset))


def _same_dims(base: torch.Tensor, tensor: torch.Tensor) -> Dims | None:
    """The base's dimension for each dimension of a tensor; None if the entries are not the same."""
    free = {dim: (n, step) for dim, (n, step) in enumerate(zip(base.shape, base.stride(), strict=True)) if n > 1}
    dims: list[int | None] = []
    for n, step in zip(tensor.shape, tensor.stride(), strict=True):
        dim = next((dim for dim, pair in free.items() if pair == (n, step)), None)
        if n > 1 and dim is None:
            return None
        dims.append(dim if n > 1 else None)
        free.pop(dim if n > 1 and dim is not None else -1, None)
    return None if free else tuple(dims)


def _extent(tensor: torch.Tensor) -> int:
    """The number of entries of memory from the first to the last one."""
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))


def _overlap(first: torch.Tensor, second: torch.Tensor) -> bool:
    begin, other = first.storage_offset(), second.storage_offset()
    return begin < other + _extent(second) and other < begin + _extent(first)


def copied_values(
    model: nn.Module, tensors: Mapping[str, torch.Tensor], *, share: bool
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every tensor of a model with its value in a copy: a given one by name, or its own; tied ones share memory.

    With `share` parameters are not copied.
    """
    current, plain = named_tensors(model), plain_tensors(model)
    ties = _ties_among(current, plain)
    values: dict[str, torch.Tensor] = {}
    for name, tensor in current.items():
        value = tensors.get(name, tensor).detach()
        values[name] = value if share and isinstance(tensor, nn.Parameter) else value.clone()
    for name, tie in ties.items():
        view = tie.view(values[tie.base], current[tie.base].shape) if tie.base in current else None
        if view is not None:
            values[name] = view
    for name, value in values.items():
        yield current[name] if name in current else plain[name], value
