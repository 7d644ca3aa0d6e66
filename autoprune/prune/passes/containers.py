"""Walks the arguments and outputs of models; used wherever these are read."""

from __future__ import annotations

import copy
import dataclasses
import enum
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.errors import UnsupportedModel

Tree = TypeVar("Tree")
_PLAIN = (
    *(bool, int, float, complex, str, bytes, types.NoneType, type, enum.Enum, range, slice),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Generator, nn.Module),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType),
)


def tensors_of(tree: object, *, caches: bool = False) -> list[torch.Tensor]:
    """The tensors in a tree of arguments or outputs, in order.

    Enters nested lists, tuples and dictionaries, named tuples and registered pytree nodes (the outputs of transformers
    among them), other mappings and sequences, dataclasses, and the attributes of any other object. Does not enter
    modules, nor, unless `caches` is set, classes called "...Cache": such an object is a state that the network reads in
    a later call, not a result.
    """
    return list(_walk(tree, caches, frozenset()))


def _walk(tree: object, caches: bool, above: frozenset[int]) -> Iterator[torch.Tensor]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.Tensor):
            yield leaf
        elif not isinstance(leaf, _PLAIN) and id(leaf) not in above and (caches or not _is_cache(leaf)):
            for part in _parts(leaf):
                yield from _walk(part, caches, above | {id(leaf)})


def _parts(holder: object) -> Iterable[Any]:
    """The contents of an object that is no pytree node, in order."""
    if isinstance(holder, Mapping):
        return list(holder.values())
    if isinstance(holder, Sequence | Set):
        return list(holder)
    if dataclasses.is_dataclass(holder):
        return [getattr(holder, field.name, None) for field in dataclasses.fields(holder)]
    slots = [name for kind in type(holder).__mro__ for name in _names(vars(kind).get("__slots__", ()))]
    return [getattr(holder, name, None) for name in slots] + list(getattr(holder, "__dict__", {}).values())


def _names(slots: str | Iterable[str]) -> list[str]:
    return [slots] if isinstance(slots, str) else [name for name in slots if not name.startswith("__")]


def _is_cache(holder: object) -> bool:
    return any(kind.__name__.endswith("Cache") for kind in type(holder).__mro__)


def copied(inputs: Tree, convert: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor) -> Tree:
    """A copy of a model's arguments that shares no memory with them, whatever holds the tensors.

    A tensor that occurs several times is one tensor in the copy as well. Gradient histories are dropped. `convert` is
    applied to each tensor, for example to move it to another device.

    Raises:
        UnsupportedModel: the arguments cannot be copied.
    """
    memo: dict[int, Any] = {id(tensor): convert(_clone(tensor)) for tensor in tensors_of(inputs, caches=True)}
    try:
        return copy.deepcopy(inputs, memo)
    except Exception as error:  # a user's object may raise anything when it is copied
        raise UnsupportedModel(
            f"expected inputs that can be copied (copy.deepcopy), since a forward may change them; got "
            f"{type(error).__name__}: {error}. Pass tensors, and lists, dictionaries or dataclasses of them."
        ) from error


def _clone(tensor: torch.Tensor) -> torch.Tensor:
    copy_of_it = tensor.detach().clone()
    return copy_of_it.requires_grad_(tensor.requires_grad)


def main_output(output: Any) -> Any:
    """The tensor that a loss or a fitness uses: the output itself, or the first tensor in it.

    An output without any tensor is returned unchanged.
    """
    return output if isinstance(output, torch.Tensor) else next(iter(tensors_of(output)), output)
