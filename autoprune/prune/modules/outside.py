"""State outside the module tree that a model's code uses and that its copies share with the original.

Global variables, class attributes, closures of decorated methods, default arguments and thread-local objects belong to
no module. They are found by following the code: the methods of all classes in the tree, its hooks, and the functions
that these name. Comparing them before and after a run shows which ones it writes to.
"""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.prune.modules.reach import callable_name, importable, private_to, reached
from autoprune.prune.modules.snapshots import Snapshot

_LIMIT = 5_000  # largest number of objects to look at behind one name
_FOREIGN = sys.stdlib_module_names | {"torch", "numpy", "autoprune"}  # packages whose code keeps no results of a model
_PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)
_CODE = (types.FunctionType, types.MethodType)
_ABSENT = object()
_CONSTRUCTION = ("__init__", "__new__", "__init_subclass__", "__repr__", "__str__", "__getstate__", "__setstate__")
_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks")


@dataclass
class Place:
    """A name outside the tree: its description, a function that reads its value, and one that sets it."""

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None] = lambda value: None
    before: Any = None
    content: Snapshot | None = None

    def look(self) -> None:
        """Records the present value."""
        self.before = self.read()
        self.content = Snapshot(self.before, _LIMIT)

    @property
    def changed(self) -> bool:
        """Whether the name stands for something else than at the last look."""
        now = self.read()
        same = (
            now is self.before
            or (isinstance(now, int | float | str) and now == self.before)
            or now == {} == self.before
        )
        return not same or (self.content is not None and self.content.changed)

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors in the value, by path."""
        found = reached(self.read(), _LIMIT).values()
        return {path: value for path, value in found if isinstance(value, torch.Tensor)}

    def restore(self) -> None:
        if self.content is not None:
            self.content.restore()
        if self.read() is not self.before:
            self.write(self.before)


@dataclass
class Outside:
    """All places outside the tree that a model's code uses."""

    places: list[Place] = field(default_factory=list)

    @staticmethod
    def of(model: nn.Module) -> Outside:
        return Outside(list(_Search(model).places.values()))

    def look(self) -> None:
        for place in self.places:
            place.look()

    def restore(self) -> None:
        for place in self.places:
            place.restore()

    def changed(self) -> list[Place]:
        """The places that a run wrote to since the last look."""
        return [place for place in self.places if place.changed]

    def empty(self) -> bool:
        """Empties the dictionaries and lists that hold tensors, as in a new process; returns whether there were any."""
        held = [place.read() for place in self.places if isinstance(place.read(), dict | list) and place.tensors]
        for container in held:
            container.clear()
        return bool(held)


class _Search:
    """Follows the code of a model from its classes and functions to the names it uses."""

    def __init__(self, model: nn.Module) -> None:
        self.places: dict[str, Place] = {}
        self.seen: set[int] = set()
        self.waiting: deque[types.FunctionType | type] = deque()
        self.called = {"forward", "__call__"}  # names used by the code seen so far
        self.methods: dict[str, list[types.FunctionType]] = {}  # methods by name, of the classes seen so far
        self.within = reached(model)
        for _, value in self.within.values():
            self._follow(getattr(value, "__func__", value) if isinstance(value, _CODE) else type(value))
        for hooks in _HOOKS:
            for hook in getattr(nn.modules.module, hooks, {}).values():
                self._meet(f"a global hook {callable_name(hook)}", lambda hook=hook: hook)  # type: ignore[misc]
        while self.waiting:
            found = self.waiting.popleft()
            self._class(found) if isinstance(found, type) else self._function(found)

    def _follow(self, found: Any) -> None:
        if isinstance(found, types.FunctionType | type) and id(found) not in self.seen and _is_users(found):
            self.seen.add(id(found))
            self.waiting.extend(c for c in (found.__mro__ if isinstance(found, type) else (found,)) if _is_users(c))

    def _class(self, found: type) -> None:
        for name, value in list(vars(found).items()):
            inner = _functions_of(value)
            self.methods.setdefault(name, []).extend(inner)
            if name in self.called or (name.startswith("__") and name not in _CONSTRUCTION):
                self._call(name)
            if not inner and not name.startswith("__") and not hasattr(type(value), "__get__"):
                label = f"class attribute {found.__qualname__}.{name}"
                self._meet(label, functools.partial(_attribute, found, name), functools.partial(setattr, found, name))
        self.places.setdefault(f"new attributes of class {found.__qualname__}", _added_to(found))

    def _function(self, function: types.FunctionType) -> None:
        if importable(function) or id(function) not in self.within:  # shared by all copies of the model
            for name, value in private_to(function):
                if isinstance(value, _PLAIN):
                    continue
                self._meet(name.strip(), lambda value=value: value)  # type: ignore[misc]
        for name in _names(function.__code__):
            self._call(name)
        for name in _global_names(function.__code__):
            self._name(function, function.__globals__, name)

    def _call(self, name: str) -> None:
        """Follows the methods of a name."""
        self.called.add(name)
        for function in self.methods.pop(name, ()):
            self._follow(function)

    def _name(self, function: types.FunctionType, names: dict[str, Any], name: str) -> None:
        value = names.get(name, _ABSENT)
        if isinstance(value, types.ModuleType):
            if _is_users(value):
                for attribute in set(_names(function.__code__)) & set(vars(value)):
                    self._global(vars(value), attribute)
        elif name in names or name not in vars(__import__("builtins")):
            self._global(names, name)

    def _global(self, names: dict[str, Any], name: str) -> None:
        label = f"global variable {name!r} of {names.get('__name__', 'a module')}"

        def write(value: Any) -> None:
            names.pop(name, None) if value is _ABSENT else names.__setitem__(name, value)

        self._meet(label, lambda: names.get(name, _ABSENT), write)

    def _meet(self, label: str, read: Callable[[], Any], write: Callable[[Any], None] = lambda value: None) -> None:
        """Follows functions and classes; everything else becomes a place."""
        value = read()
        inner = _functions_of(value)
        for found in inner or [value]:
            self._follow(found)
        if not inner and not isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            self._add(label, read, write)

    def _add(self, label: str, read: Callable[[], Any], write: Callable[[Any], None]) -> None:
        value = read()
        if id(value) not in self.within and not _is_foreign(value):  # copies have their own of the model's objects
            self.places.setdefault(label, Place(label, read, write))


def _added_to(found: type) -> Place:
    """The place for attributes that a run adds to a class."""
    known = set(vars(found))

    def remove(_: Any) -> None:
        for name in set(vars(found)) - known:
            delattr(found, name)

    def added() -> dict[str, Any]:
        return {name: value for name, value in vars(found).items() if name not in known}

    return Place(f"a new attribute of class {found.__qualname__}", added, remove)


def _attribute(found: type, name: str) -> Any:
    return vars(found).get(name, _ABSENT)


def _functions_of(value: Any) -> list[types.FunctionType]:
    """The functions behind a method, a property or a decorated function."""
    if isinstance(value, types.FunctionType):
        wrapped = getattr(value, "__wrapped__", None)
        return [value, *_functions_of(wrapped)] if wrapped is not None else [value]
    if isinstance(value, property):
        return [f for f in (value.fget, value.fset) if isinstance(f, types.FunctionType)]
    for name in ("__func__", "__wrapped__", "func"):
        if isinstance(inner := getattr(value, name, None), types.FunctionType):
            return _functions_of(inner)
    return []


def _is_users(found: Any) -> bool:
    """Whether code belongs neither to Python nor to torch nor to this package."""
    module = found.__name__ if isinstance(found, types.ModuleType) else getattr(found, "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] not in _FOREIGN


def _is_foreign(value: Any) -> bool:
    """Whether a value is a library's own object, such as a logger."""
    kind = type(value)
    return kind.__module__ not in ("builtins", "collections", "torch", "_thread", "weakref") and not (
        _is_users(kind) or kind.__module__.startswith("torch.nn")
    )


@functools.cache
def _names(code: types.CodeType) -> tuple[str, ...]:
    """All names in the code of a function and of the functions defined in it."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    return (*code.co_names, *inner)


@functools.cache
def _global_names(code: types.CodeType) -> tuple[str, ...]:
    """The global variables that a function's code reads or writes."""
    own = [str(step.argval) for step in dis.get_instructions(code) if step.opname.endswith(("_GLOBAL", "_NAME"))]
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _global_names(const)]
    return tuple(dict.fromkeys((*own, *inner)))
