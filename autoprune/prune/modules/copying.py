"""Copies of models, with the model's own parameters or replacements."""

from __future__ import annotations

import contextlib
import copy
import copyreg
import functools
import hashlib
import types
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.reach import (
    PLAIN,
    cell_content,
    importable,
    is_weak,
    namespace_of,
    private_to,
    reached,
    slots_of,
)

_LARGE = 10_000  # largest number of objects in a value outside the model that is copied with it
_HOW_TO_COPY: dict[str, type] = {
    "__getstate__": nn.Module,
    "__getattr__": nn.Module,
    "__getattribute__": object,
    "__reduce__": object,
    "__reduce_ex__": object,
}


def named_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by name, each tensor once."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def cloned(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of tensors by name, without gradients."""
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def copy_with(model: nn.Module, memo: Mapping[int, Any], *, connected: bool = False) -> nn.Module:
    """A deep copy, with replacements by the id of the object that they replace.

    Copies what copy.deepcopy shares with the original as well: closures and default arguments of hooks and other
    functions of the model, targets of weak references, and results of an earlier forward pass, wherever a module keeps
    them. Importable functions are shared, and so is anything that cannot be copied. In a `connected` copy, objects that
    only hooks close over and the model does not keep, such as a list filled for the user, remain the user's.

    Raises:
        UnsupportedModel: the model cannot be copied.
    """
    kept = reached(model)
    functions = [f for _, f in kept.values() if isinstance(f, types.FunctionType) and _is_private(f)]
    cells = _cells_for(functions, _users_cells(model, functions) if connected else frozenset())
    shells = {id(function): _shell(function, cells) for function in functions}
    memo = {**_without_history(kept), **shells, **memo}
    try:
        copied: nn.Module = _deep_copy(model, memo)
    except Exception as error:  # a user's object may raise anything when it is copied
        raise UnsupportedModel(
            f"expected a model that can be copied (copy.deepcopy), got {type(error).__name__} from a "
            f"{type(model).__name__}{_culprit(model, memo)}: {error}"
        ) from error
    for function in functions:
        _fill(shells[id(function)], function, memo)
    if any(is_weak(value) for _, value in kept.values()):
        _turn_weak_references(copied, memo)
    return copied


def _deep_copy(module: Any, memo: dict[int, Any]) -> Any:
    """The result of copy.deepcopy(module, memo), in half its time, since the networks of all candidates are copies.

    copy.deepcopy spends most of its time on attributes that need no copy, such as names and numbers, and on the ten
    empty dictionaries of hooks that each module has.
    """
    kind: Any = type(module)
    if id(module) in memo or not _by_default(kind):
        return copy.deepcopy(module, memo)
    shell = memo[id(module)] = kind.__new__(kind)
    state = module.__getstate__()
    for name, value in state.items():
        if type(value) not in PLAIN:
            state[name] = _submodules(value, memo) if name == "_modules" else _value(value, memo)
    shell.__setstate__(state)
    return shell


def _submodules(modules: Any, memo: dict[int, Any]) -> Any:
    if type(modules) is not dict or id(modules) in memo:
        return copy.deepcopy(modules, memo)
    copied: dict[str, Any] = {}
    memo[id(modules)] = copied
    for name, module in modules.items():
        copied[name] = None if module is None else _deep_copy(module, memo)
    return copied


def _value(value: Any, memo: dict[int, Any]) -> Any:
    if type(value) is OrderedDict and not value and not vars(value) and id(value) not in memo:
        return memo.setdefault(id(value), OrderedDict())
    return copy.deepcopy(value, memo)


@functools.lru_cache(maxsize=4096)
def _by_default(kind: type) -> bool:
    """Whether a module's class leaves to nn.Module and object how its instances are copied."""
    return (
        all(getattr(kind, name, None) is getattr(owner, name) for name, owner in _HOW_TO_COPY.items())
        and not any(hasattr(kind, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
        and not (kind in copyreg.dispatch_table or slots_of(kind) or issubclass(kind, list | dict))
    )


def _without_history(kept: Mapping[int, tuple[str, Any]]) -> dict[int, Any]:
    """Replacements for results of an earlier forward pass, which refuse to be copied; proxies stand for themselves."""
    found: dict[int, Any] = {}
    for key, (_, value) in kept.items():
        if is_weak(value):
            found[key] = value
        elif isinstance(value, torch.Tensor) and not value.is_leaf:
            found[key] = value.detach().clone()
    return found


def _is_private(function: types.FunctionType) -> bool:
    """Whether a function belongs to the model alone and keeps values, so that it has to be copied, too."""
    return next(private_to(function), None) is not None and not importable(function)


def _users_cells(model: nn.Module, functions: Sequence[types.FunctionType]) -> frozenset[int]:
    """The ids of the variables that only hooks close over and from which nothing of the model is reached."""
    hooks = {
        id(hook)
        for module in model.modules()
        for name, found in vars(module).items()
        if name.endswith("hooks") and isinstance(found, dict)
        for hook in found.values()
    }
    held = {id(cell): cell for f in functions if id(f) in hooks for cell in f.__closure__ or ()}
    if not held:
        return frozenset()
    within = reached(model, closures=False).keys()
    others = {id(cell) for f in functions if id(f) not in hooks for cell in f.__closure__ or ()}
    return frozenset(
        key for key, cell in held.items() if key not in others and not reached(cell_content(cell)).keys() & within
    )


def _cells_for(functions: Sequence[types.FunctionType], users: frozenset[int]) -> dict[int, types.CellType]:
    """A new, empty cell for each closure variable, by its id, shared by all functions that share the variable."""
    cells = {id(cell): cell for function in functions for cell in function.__closure__ or ()}
    return {key: cell if key in users else types.CellType() for key, cell in cells.items()}


def _shell(function: types.FunctionType, cells: Mapping[int, types.CellType]) -> types.FunctionType:
    """The same function over other closure variables."""
    closure = tuple(cells[id(cell)] for cell in function.__closure__ or ())
    shell = types.FunctionType(function.__code__, function.__globals__, function.__name__, None, closure)
    for name in (*functools.WRAPPER_ASSIGNMENTS, "__type_params__"):
        if hasattr(function, name):
            setattr(shell, name, getattr(function, name))
    return shell


def _fill(shell: types.FunctionType, function: types.FunctionType, memo: dict[int, Any]) -> None:
    """Fills a copied function with copies of the original's values."""
    for cell, original in zip(shell.__closure__ or (), function.__closure__ or (), strict=True):
        if cell is not original:
            with contextlib.suppress(ValueError):  # the cell is empty in the original, too
                cell.cell_contents = _copied(original.cell_contents, memo)
    if function.__defaults__ is not None:
        shell.__defaults__ = tuple(_copied(value, memo) for value in function.__defaults__)
    if function.__kwdefaults__ is not None:
        shell.__kwdefaults__ = {name: _copied(value, memo) for name, value in function.__kwdefaults__.items()}
    vars(shell).update({name: _copied(value, memo) for name, value in vars(function).items()})


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """A deep copy in the context of the model's; large values (a data set) and uncopyable ones (locks) are shared."""
    if len(reached(value, _LARGE)) > _LARGE:
        return value
    trial = dict(memo)
    try:
        result = copy.deepcopy(value, trial)
    except Exception:  # alone.py watches shared objects
        return value
    memo.update({key: found for key, found in trial.items() if key != id(trial)})
    return result


def _turn_weak_references(copied: nn.Module, memo: Mapping[int, Any]) -> None:
    """Makes weak references to copied objects refer to the copies."""
    for _, holder in reached(copied).values():
        for names in (holder, namespace_of(holder) or {}):
            pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else ()
            for key, value in list(pairs):
                if is_weak(value) and (turned := _turned(value, memo)) is not None:
                    names[key] = turned


def _turned(reference: Any, memo: Mapping[int, Any]) -> Any:
    """A weak reference or proxy of the same kind to the copy; None if the target was not copied."""
    if isinstance(reference, weakref.WeakMethod):
        method = reference()
        owner = memo.get(id(getattr(method, "__self__", None)))
        return None if method is None or owner is None else weakref.WeakMethod(types.MethodType(method.__func__, owner))
    proxy = type(reference) in weakref.ProxyTypes
    try:
        target = memo.get(id(reference.__init__.__self__ if proxy else reference()))
    except ReferenceError:  # a proxy that outlived its target
        return None
    if target is None:
        return None
    return weakref.proxy(target) if proxy else weakref.ref(target)


def _culprit(model: nn.Module, memo: Mapping[int, Any]) -> str:
    """The attribute, and its module, that refuses to be copied."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in ("_modules", "_parameters", "_buffers"):
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception:
                owner = f"module {name!r}" if name else "the top module"
                return f", in attribute {attribute!r} of {owner}"
    return ""


def model_digest(model: nn.Module) -> str:
    """The sha256 over names, shapes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named_tensors(model).items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
