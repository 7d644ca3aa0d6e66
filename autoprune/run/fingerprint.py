"""What a plug-in's results follow from, as facts that are the same in every process with the same code.

A fingerprint maps labels to short texts: options as they are written, digests of sources and of larger values. Of the
user's own code it follows the functions, classes and values that a plug-in uses, wherever they are defined; an
installed package counts with its version. Nothing depends on addresses, line numbers, the order of hashes, or on
whether a file was imported, named by its path or run as a script. What a function changes while it runs, such as a
counter or a list of calls, is no part of it, nor is anything that is called a token or a password.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import logging
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.plugins import plugin_name
from autoprune.prune.copying import model_digest
from autoprune.run.secrets import HIDDEN, is_secret
from autoprune.run.source import (
    attributes_in,
    changed_by,
    changed_in,
    imports_in,
    is_own,
    module_text,
    names_in,
    package_of,
    source_text,
)

Facts = dict[str, str]

SOURCE = "source of "  # what the labels of sources begin with

_SHORT = 80  # a longer value is told by its kind and digest
_LONG = 10_000  # a representation that is longer says nothing
_DEEP = 20  # levels of values in values
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CALLED = frozenset(("__call__", "forward"))


def fingerprint(plugin: Any) -> Facts:
    """The facts of a function, class, partial application or callable object; none of the name of a built-in."""
    if isinstance(plugin, str):
        return {}
    return _Collector().collect(plugin)


def architecture(model: nn.Module) -> Facts:
    """What a network computes apart from its tensors: the sources of its classes and the settings of its modules."""
    collector = _Collector()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        if is_own(kind.__module__):
            collector.follow(kind)
    settings = {name: _settings(module, ()) for name, module in model.named_modules()}
    return {"settings of its modules": _digest(repr(sorted(settings.items()))), **collector.facts}


def _settings(module: nn.Module, around: tuple[int, ...]) -> list[str]:
    """The class of a module and its own attributes: numbers, words, tensors, functions, objects of the user's."""
    changed = changed_by(type(module), _CALLED)
    kept = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and name not in changed and _is_setting(value)
    }
    return [type(module).__qualname__, *(f"{name}={_canonical(value, around)}" for name, value in sorted(kept.items()))]


def _is_setting(value: Any) -> bool:
    known = (*_PLAIN, enum.Enum, torch.Tensor, np.ndarray, list, tuple, dict, set)
    return isinstance(value, known) or _is_code(value) or is_own(type(value).__module__)


@dataclass
class _Collector:
    """Gathers facts; what was followed is not followed again."""

    facts: Facts = field(default_factory=dict)
    _seen: dict[int, Any] = field(default_factory=dict)  # keeps what it knows alive, so that no number is used again

    def collect(self, plugin: Any) -> Facts:
        while isinstance(plugin, functools.partial):
            for number, argument in enumerate(plugin.args, start=1):
                self.value(f"argument {number}", argument)
            for name, argument in plugin.keywords.items():
                self.value(name, argument)
            plugin = plugin.func
        package = package_of(_module_of(plugin))
        if package and not package.startswith("autoprune "):
            self.facts["package"] = package
            self._note(SOURCE, plugin)
        self.follow(plugin)
        return self.facts

    def value(self, label: str, value: Any, called: frozenset[str] = _CALLED) -> None:
        """Notes a value under its label, and what it uses where it is code of the user's own."""
        if is_secret(label.partition(" ")[0], value):
            self.facts[label] = HIDDEN
        elif _is_code(value):
            self.facts[label] = plugin_name(value) if not isinstance(value, ModuleType) else value.__name__
            self.follow(value)
        else:
            self.facts[label] = _shown(value, called)

    def follow(self, thing: Any, attributes: tuple[str, ...] = ()) -> None:
        """Notes the source of the user's own code and everything that it uses; of a module, the named attributes."""
        thing = thing.__wrapped__ if hasattr(thing, "__wrapped__") and hasattr(thing, "cache_info") else thing
        if isinstance(thing, ModuleType):
            self._module(thing, attributes)
            return
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, functools.partial):
            self.facts |= {f"{plugin_name(thing)} {label}": text for label, text in fingerprint(thing).items()}
        elif isinstance(thing, MethodType):
            self.follow(thing.__func__)
            self._state(thing.__self__, frozenset((thing.__name__,)))
        elif isinstance(thing, FunctionType | type):
            if is_own(thing.__module__):
                self._definition(thing)
        elif not isinstance(thing, BuiltinFunctionType):
            self._state(thing, _CALLED)

    def _definition(self, thing: FunctionType | type) -> None:
        self._note(SOURCE, thing)
        for function in [thing] if isinstance(thing, FunctionType) else _methods(thing):
            self._variables(function)
        for base in thing.__bases__ if isinstance(thing, type) else ():
            self.follow(base)

    def _variables(self, function: FunctionType) -> None:
        """Defaults, closure and globals of a function, without what it changes itself."""
        label, changed = _label(function), changed_in(function)
        count = function.__code__.co_argcount
        defaults = function.__defaults__ or ()
        arguments = function.__code__.co_varnames[count - len(defaults) : count]
        for name, value in (*zip(arguments, defaults, strict=True), *(function.__kwdefaults__ or {}).items()):
            self.value(f"{name} by default in {label}", value)
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        free = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
        self._names(function, {**function.__globals__, **free}, changed)

    def _names(self, function: FunctionType, known: Mapping[str, Any], changed: frozenset[str]) -> None:
        """What a function finds under the names it reads, as far as these are known."""
        read = names_in(function)
        called = attributes_in(function) | _CALLED
        for name in sorted((read.keys() & known.keys()) - changed):
            value = known[name]
            if isinstance(value, ModuleType):
                self.follow(value, read[name])
            elif value is not function and not name.startswith("__"):
                self.value(f"{name} in {_label(function)}", value, called)
        for module in imports_in(function):
            if module in sys.modules:
                self._module(sys.modules[module], ())

    def _module(self, module: ModuleType, attributes: tuple[str, ...]) -> None:
        """The attributes of a module that are used; the whole file, and what it imports, where that is not known."""
        if not is_own(module.__name__) or id(module) in self._seen:
            return
        for name in attributes:
            if hasattr(module, name):
                self.value(f"{name} of {module.__name__}", getattr(module, name))
        if not attributes:
            self._seen[id(module)] = module
            self.facts[f"{SOURCE}{module.__name__}"] = _digest(module_text(module))
            inner = {_module_of(value) for value in vars(module).values() if _is_code(value)}
            for name in sorted(inner & sys.modules.keys()):
                self._module(sys.modules[name], ())

    def _state(self, thing: Any, called: frozenset[str]) -> None:
        """The class and the attributes of an object that is called."""
        kind = type(thing)
        self.follow(kind)
        if isinstance(thing, nn.Module):
            self.facts[f"weights of {kind.__qualname__}"] = model_digest(thing)
            self.facts |= architecture(thing)
            return
        if not is_own(kind.__module__):
            self.facts[f"a {kind.__qualname__}"] = _canonical(thing, ())
            return
        for name, value in _attributes(thing, called):
            self.value(f"{name} of {kind.__qualname__}", value, _CALLED | attributes_in(kind))

    def _note(self, what: str, thing: Any) -> None:
        """The digest of a source under a label that no other one has."""
        if not isinstance(thing, FunctionType | type):
            return
        label = what + _label(thing)
        number = 2
        while label in self.facts:
            label, number = f"{what}{_label(thing)} ({number})", number + 1
        text = source_text(thing)
        head, colon, _ = text.partition(":") if text.startswith("bytecode of") else ("", "", "")
        self.facts[label] = head + colon + _digest(text)


def _module_of(thing: Any) -> str:
    if isinstance(thing, ModuleType):
        return thing.__name__
    return str(getattr(thing, "__module__", None) or type(thing).__module__)


def _is_code(value: Any) -> bool:
    if isinstance(value, ModuleType | FunctionType | MethodType | BuiltinFunctionType | type | functools.partial):
        return True
    return callable(value) and not isinstance(value, nn.Module) and is_own(type(value).__module__)


def _label(thing: FunctionType | type) -> str:
    return thing.__qualname__.replace("<locals>.", "")


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _methods(kind: type) -> list[FunctionType]:
    """The functions of a class, those behind properties and decorators of methods too."""
    found = []
    for _, member in sorted(vars(kind).items()):
        parts = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "__func__", member),)
        found += [part for part in parts if isinstance(part, FunctionType) and part.__module__ == kind.__module__]
    return found


def _attributes(thing: Any, called: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The attributes of an object by name, without those its methods change when they are called."""
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(thing, name)]
    held = {**{name: getattr(thing, name) for name in slots}, **getattr(thing, "__dict__", {})}
    changed = changed_by(type(thing), called)
    yield from sorted((name, value) for name, value in held.items() if name not in changed)


def _shown(value: Any, called: frozenset[str]) -> str:
    text = _canonical(value, (), called)
    return text if len(text) <= _SHORT else f"{type(value).__name__} {_digest(text)}"


def _digest(text: str | memoryview) -> str:
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def _canonical(value: Any, around: tuple[int, ...], called: frozenset[str] = _CALLED) -> str:
    """A value as text: the same for equal values in any process, its kind alone where nothing else can be said."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if type(value) in _PLAIN:
        return repr(value)
    if id(value) in around or len(around) > _DEEP:
        return "..."
    inside = (*around, id(value))
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _array(value)
    if isinstance(value, Mapping):
        pairs = [
            (_canonical(k, inside), HIDDEN if is_secret(k, v) else _canonical(v, inside, called))
            for k, v in value.items()
        ]
        return f"{{{', '.join(f'{k}: {v}' for k, v in sorted(pairs))}}}"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(_canonical(entry, inside) for entry in value))}}}"
    if isinstance(value, list | tuple | deque):
        return f"{type(value).__name__}({', '.join(_canonical(entry, inside, called) for entry in value)})"
    if isinstance(value, nn.Module):
        parts = [_settings(module, inside) for module in value.modules()]
        return f"{type(value).__qualname__} {model_digest(value)} {_digest(repr(parts))}"
    if _is_code(value):
        return _code(value, inside, called)
    return _object(value, inside, called)


def _code(value: Any, inside: tuple[int, ...], called: frozenset[str]) -> str:
    """A function or class in a value: its name, with its source where it is the user's."""
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, functools.partial):
        given = _canonical((value.func, value.args, value.keywords), inside)
        return f"{plugin_name(value)} {_digest(given)}"
    if isinstance(value, MethodType):
        return f"{plugin_name(value)} {_digest(_canonical((value.__func__, value.__self__), inside))}"
    if isinstance(value, FunctionType | type):
        return f"{plugin_name(value)} {_digest(source_text(value))}" if is_own(value.__module__) else plugin_name(value)
    return plugin_name(value) if isinstance(value, BuiltinFunctionType) else _object(value, inside, called)


def _object(value: Any, inside: tuple[int, ...], called: frozenset[str]) -> str:
    kind = type(value)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) or isinstance(value, SimpleNamespace) or is_own(kind.__module__):
        parts = [f"{name}={_canonical(part, inside, called)}" for name, part in _attributes(value, called)]
        return f"{kind.__qualname__}({', '.join(parts)})"
    if isinstance(value, logging.Logger) or hasattr(value, "__next__"):
        return kind.__qualname__
    try:
        text = repr(value)
    except Exception:  # whatever an object raises that is asked for its representation
        return kind.__qualname__
    return kind.__qualname__ if " at 0x" in text or len(text) > _LONG else text


def _array(value: torch.Tensor | np.ndarray | np.generic) -> str:
    """Kind, shape and content of an array; a single number as it is."""
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, np.ndarray) and value.dtype == object:
        return _canonical(value.tolist(), ())
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value)
    elif value.is_meta or value.layout != torch.strided:
        return f"tensor {tuple(value.shape)} {value.dtype} {value.layout}"
    else:
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    digest = _digest(content.reshape(-1).view(np.uint8).data)
    return f"{type(value).__name__} {tuple(value.shape)} {value.dtype} {digest}"
