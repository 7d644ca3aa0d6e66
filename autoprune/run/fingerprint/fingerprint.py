"""What a plug-in's results follow from, as facts that are the same in every process with the same code.

A fingerprint maps labels to short texts: options as they are written, digests of sources and of larger values. Of the
user's own code it follows the functions, classes and values that a plug-in uses, wherever they are defined; an
installed package counts with its version. Nothing depends on addresses, line numbers, the order of hashes, or on
whether a file was imported, named by its path or run as a script. What a function changes while it runs, such as a
counter or a list of calls, is no part of it, nor is anything that is called a token or a password.
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
    settings,
    shown,
)
from autoprune.run.fingerprint.secrets import HIDDEN, is_secret
from autoprune.run.fingerprint.source import (
    attributes_in,
    changed_in,
    imports_in,
    is_own,
    module_text,
    names_in,
    package_of,
    source_text,
)

CodeFacts = dict[str, str]

SOURCE = "source of "  # what the labels of sources begin with

_CACHED = type(functools.cache(lambda: None))


def fingerprint(plugin: Any) -> CodeFacts:
    """The facts of a function, class, partial application or callable object; none of the name of a built-in."""
    if isinstance(plugin, str):
        return {}
    return _Collector().collect(plugin)


def architecture(model: nn.Module) -> CodeFacts:
    """What a network computes apart from its tensors: the sources of its classes and the settings of its modules."""
    collector = _Collector()
    for kind in dict.fromkeys(type(module) for module in model.modules()):
        if is_own(kind.__module__):
            collector.follow(kind)
    kept = {name: settings(module) for name, module in model.named_modules()}
    return {"settings of its modules": digest(repr(sorted(kept.items()))), **collector.facts}


@dataclass
class _Collector:
    """Gathers facts; what was followed is not followed again."""

    facts: CodeFacts = field(default_factory=dict)
    _seen: dict[int, Any] = field(default_factory=dict)  # keeps what it knows alive, so that no number is used again

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
        """Notes a value under its label, and what it uses where it is code of the user's own."""
        if is_secret(label.partition(" ")[0], value):
            self.facts[label] = HIDDEN
        elif is_code(value):
            self.facts[label] = plugin_name(value) if not isinstance(value, ModuleType) else value.__name__
            self.follow(value)
        else:
            self.facts[label] = shown(value, called)

    def follow(self, thing: Any, attributes: tuple[str, ...] = ()) -> None:
        """Notes the source of the user's own code and everything that it uses; of a module, the named attributes."""
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
            if is_own(thing.__module__):
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
        """The attributes of a module that are used; the whole file, and what it imports, where that is not known."""
        if not is_own(module.__name__) or id(module) in self._seen:
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
        """The class and the attributes of an object that is called."""
        kind = type(thing)
        self.follow(kind)
        if isinstance(thing, nn.Module):
            self.facts[f"weights of {kind.__qualname__}"] = model_digest(thing)
            self.facts |= architecture(thing)
            return
        if not is_own(kind.__module__):
            self.facts[f"a {kind.__qualname__}"] = canonical(thing)
            return
        for name, value in attributes(thing, called):
            self.value(f"{name} of {kind.__qualname__}", value, CALLED | attributes_in(kind))

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
    """The functions of a class, those behind properties and decorators of methods too."""
    found = []
    for _, member in sorted(vars(kind).items()):
        parts = (member.fget, member.fset) if isinstance(member, property) else (getattr(member, "__func__", member),)
        found += [part for part in parts if isinstance(part, FunctionType) and part.__module__ == kind.__module__]
    return found
