"""Fingerprints: facts that determine a plug-in's results, the same in every process with the same code.

A fingerprint maps labels to short texts: options as written, and digests of sources and of larger values. It covers the
functions, classes and values of the user's code that a plug-in uses, wherever they are defined; an installed package is
covered by its version. It does not depend on addresses, line numbers, hash order, or on whether a file was imported,
named by its path or run as a script. Variables that a function changes while it runs, such as a counter or a list of
calls, are not covered, and neither are names of secrets such as tokens or passwords.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import nn

from autoprune.plugins import plugin_name
from autoprune.prune.modules.copying import model_digest
from autoprune.run.fingerprint.canonical import (
    CALLED,
    attributes,
    canonical,
    digest,
    is_code,
    module_of,
    module_settings,
    shown,
)
from autoprune.run.fingerprint.secrets import HIDDEN, is_secret
from autoprune.run.fingerprint.source import (
    attributes_in,
    changed_in,
    imports_in,
    is_users_code,
    module_text,
    names_in,
    package_of,
    source_text,
)

CodeFacts = dict[str, str]

SOURCE = "source of "  # prefix of the labels of sources

_CACHED = type(functools.cache(lambda: None))


def fingerprint(plugin: Any) -> CodeFacts:
    """The facts of a function, class, partial application or callable object; none for the name of a built-in."""
    if isinstance(plugin, str):
        return {}
    return _Collector().collect(plugin)


def architecture(model: nn.Module) -> CodeFacts:
    """The facts of a network except its tensors: the sources of its classes and the settings of its modules."""
    collector = _Collector()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        if is_users_code(kind.__module__):
            collector.follow(kind)
    kept = {name: module_settings(module) for name, module in model.named_modules()}
    return {"settings of its modules": digest(repr(sorted(kept.items()))), **collector.facts}


@dataclass
class _Collector:
    """Collects facts; every object is followed once."""

    facts: CodeFacts = field(default_factory=dict)
    _seen: dict[int, Any] = field(default_factory=dict)  # holds the objects, so that no id is reused

    def collect(self, plugin: Any) -> CodeFacts:
        while isinstance(plugin, functools.partial):
            for number, argument in enumerate(plugin.args, start=1):
                self.value(f"argument {number}", argument)
            for name, argument in plugin.keywords.items():
                self.value(name, argument)
            plugin = plugin.func
        package = package_of(module_of(plugin))
        if package and not package.startswith("autoprune "):
            self.facts["package"] = package
            self._note(SOURCE, plugin)
        self.follow(plugin)
        return self.facts

    def value(self, label: str, value: Any, called: frozenset[str] = CALLED) -> None:
        """Records a value under its label; if it is the user's code, also what it uses."""
        if is_secret(label.partition(" ")[0], value):
            self.facts[label] = HIDDEN
        elif is_code(value):
            self.facts[label] = plugin_name(value) if not isinstance(value, ModuleType) else value.__name__
            self.follow(value)
        else:
            self.facts[label] = shown(value, called)

    def follow(self, thing: Any, attributes: tuple[str, ...] = ()) -> None:
        """Records the source of the user's code and everything it uses; for a module, only the named attributes."""
        thing = thing.__wrapped__ if isinstance(thing, _CACHED) else thing
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
            if is_users_code(thing.__module__):
                self._definition(thing)
        elif not isinstance(thing, BuiltinFunctionType):
            self._state(thing, CALLED)

    def _definition(self, thing: FunctionType | type) -> None:
        self._note(SOURCE, thing)
        for function in [thing] if isinstance(thing, FunctionType) else _methods(thing):
            self._variables(function)
        for base in thing.__bases__ if isinstance(thing, type) else ():
            self.follow(base)

    def _variables(self, function: FunctionType) -> None:
        """Records the defaults, closure and globals of a function, except those that it changes itself."""
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
        """Records the values of the names that a function reads, as far as they are known."""
        read = names_in(function)
        called = attributes_in(function) | CALLED
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
        """Records the used attributes of a module; if they are unknown, the whole file and its imports."""
        if not is_users_code(module.__name__) or id(module) in self._seen:
            return
        for name in attributes:
            if hasattr(module, name):
                self.value(f"{name} of {module.__name__}", getattr(module, name))
        if not attributes:
            self._seen[id(module)] = module
            self.facts[f"{SOURCE}{module.__name__}"] = digest(module_text(module))
            inner = {module_of(value) for value in vars(module).values() if is_code(value)}
            for name in sorted(inner & sys.modules.keys()):
                self._module(sys.modules[name], ())

    def _state(self, thing: Any, called: frozenset[str]) -> None:
        """Records the class and the attributes of a called object."""
        kind = type(thing)
        self.follow(kind)
        if isinstance(thing, nn.Module):
            self.facts[f"weights of {kind.__qualname__}"] = model_digest(thing)
            self.facts |= architecture(thing)
            return
        if not is_users_code(kind.__module__):
            self.facts[f"a {kind.__qualname__}"] = canonical(thing)
            return
        for name, value in attributes(thing, called):
            self.value(f"{name} of {kind.__qualname__}", value, CALLED | attributes_in(kind))

    def _note(self, what: str, thing: Any) -> None:
        """Records the digest of a source under a unique label."""
        if not isinstance(thing, FunctionType | type):
            return
        label = what + _label(thing)
        number = 2
        while label in self.facts:
            label, number = f"{what}{_label(thing)} ({number})", number + 1
        text = source_text(thing)
        head, colon, _ = text.partition(":") if text.startswith("bytecode of") else ("", "", "")
        self.facts[label] = head + colon + digest(text)


def _label(thing: FunctionType | type) -> str:
    return thing.__qualname__.replace("<locals>.", "")


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True


def _methods(kind: type) -> list[FunctionType]:
    """The functions of a class, including those of properties and decorated methods."""
    found = []
    for _, member in sorted(vars(kind).items()):
        parts = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "__func__", member),)
        found += [part for part in parts if isinstance(part, FunctionType) and part.__module__ == kind.__module__]
    return found
