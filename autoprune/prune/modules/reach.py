"""Object graphs: everything that can be reached from an object without entering a class or an imported module.

Modules keep more than their parameters: hooks with closures, bound methods, partial functions, containers with results
of an earlier forward pass, weak references. Copies (copying.py), snapshots (snapshots.py) and the search for state
outside the module tree (outside.py) follow the same links.
"""

from __future__ import annotations

import functools
import sys
import types
import weakref
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

Link = tuple[str, Any]  # the text of an access, such as ".name" or "[0]", and the object
_LEAVES = (type, types.ModuleType, types.BuiltinFunctionType, types.CodeType, torch.Tensor, torch.dtype, torch.device)
PLAIN = frozenset((type(None), bool, int, float, complex, str, bytes))
_CONTAINERS = frozenset((OrderedDict, dict, list, tuple, set))


def reached(root: object, limit: int | None = None, *, closures: bool = True) -> dict[int, Link]:
    """Every object that can be reached from the root, by its id: the shortest path found, and the object itself.

    Numbers, strings and other plain values are left out, and without `closures` also the private state of functions.
    With a limit the search ends after that many objects.
    """
    found: dict[int, Link] = {id(root): ("", root)}
    waiting = deque(found.values())
    while waiting and (limit is None or len(found) <= limit):
        path, holder = waiting.popleft()
        if isinstance(holder, types.FunctionType) and not closures:
            continue
        for step, value in parts(holder):
            if type(value) not in PLAIN and id(value) not in found:
                found[id(value)] = (path + step, value)
                if not _is_empty(value):
                    waiting.append(found[id(value)])
    return found


def _is_empty(value: Any) -> bool:
    """Whether a value is a container that keeps nothing, as most dictionaries of hooks are."""
    return type(value) in _CONTAINERS and not value and not getattr(value, "__dict__", None)


def parts(value: Any) -> Iterator[Link]:
    """The objects that a value keeps directly; the target of a weak reference is not among them."""
    kind = type(value)
    if issubclass(kind, _LEAVES) or kind in PLAIN or is_weak(value):
        return
    if issubclass(kind, types.FunctionType):
        yield from private_to(value)
    elif issubclass(kind, types.MethodType):
        yield f" of {value.__name__}", value.__self__  # the function of a method belongs to the class
    elif issubclass(kind, functools.partial):
        yield from _numbered(f"argument of partial({callable_name(value.func)})", value.args)
        yield from (
            (f" argument {name!r} of partial({callable_name(value.func)})", v) for name, v in value.keywords.items()
        )
        yield ("", value.func)
    else:
        yield from _members(value)


def _members(value: Any) -> Iterator[Link]:
    if isinstance(value, dict):  # via the base class, as some subclasses fill themselves when they are read
        yield from ((f"[{key!r}]" if isinstance(key, str | int) else "[...]", v) for key, v in list(dict.items(value)))
    elif isinstance(value, list | tuple | set | frozenset | deque):
        yield from _numbered("", list(value))
    yield from attributes_of(value)


def attributes_of(value: Any) -> Iterator[Link]:
    """The attributes of an instance; parameters, buffers and submodules of a module under their own names."""
    registered = ("_parameters", "_buffers", "_modules") if isinstance(value, nn.Module) else ()
    for name, part in list((namespace_of(value) or {}).items()):
        if name in registered and isinstance(part, dict):
            yield from ((f".{key}", inner) for key, inner in part.items())
        else:
            yield f".{name}", part
    for name in slots_of(type(value)):  # type: ignore[arg-type]  # mypy takes a class of any type for unhashable
        if hasattr(value, name):
            yield f".{name}", getattr(value, name)


@functools.lru_cache(maxsize=4096)
def slots_of(kind: type) -> tuple[str, ...]:
    """The names of all slots of a class, including those of its bases."""
    declared = [vars(each).get("__slots__", ()) for each in kind.__mro__]
    names = [name for slots in declared for name in ((slots,) if isinstance(slots, str) else slots)]
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def namespace_of(value: Any) -> dict[str, Any] | None:
    """The dictionary of an instance's attributes; for a thread-local object, the current thread's."""
    found = getattr(value, "__dict__", None)
    return found if isinstance(found, dict) else None


def private_to(function: types.FunctionType) -> Iterator[Link]:
    """The private state of a function: closure variables, default arguments and attributes."""
    named = zip(function.__code__.co_freevars, function.__closure__ or (), strict=False)
    for name, cell in named:
        if (content := cell_content(cell)) is not None:
            yield f" closure variable {name!r} of {callable_name(function)}", content
    for index, default in enumerate(function.__defaults__ or ()):
        last = function.__code__.co_varnames[: function.__code__.co_argcount][-len(function.__defaults__ or ()) :]
        yield f" default argument {last[index]!r} of {callable_name(function)}", default
    for name, default in (function.__kwdefaults__ or {}).items():
        yield f" default argument {name!r} of {callable_name(function)}", default
    yield from ((f".{name}", value) for name, value in vars(function).items())


def cell_content(cell: types.CellType) -> Any:
    """The content of a closure's cell; None if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def callable_name(function: object) -> str:
    """The name of a callable, with the place of its definition for a function."""
    name = getattr(function, "__qualname__", type(function).__name__)
    code = getattr(function, "__code__", None)
    return name if code is None else f"{name} ({code.co_filename.rpartition('/')[2]}:{code.co_firstlineno})"


def is_weak(value: object) -> bool:
    """Whether a value is a weak reference or proxy; any other test of a proxy answers for its target."""
    return issubclass(type(value), weakref.ref) or type(value) in weakref.ProxyTypes


def importable(function: types.FunctionType) -> bool:
    """Whether a function can be imported by its name, and so is shared by all users."""
    found: Any = sys.modules.get(function.__module__)
    for name in function.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is function


def _numbered(prefix: str, values: Any) -> Iterator[Link]:
    return ((f"{prefix}[{index}]", value) for index, value in enumerate(values))
