"""Converts values to text that is the same for equal values in every process, without addresses or hash order.

The text has the attributes of objects of the user's classes, the content of tensors and arrays, and the source of
functions; other objects are described by their type alone.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import logging
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
from autoprune.prune.modules.copying import model_digest
from autoprune.run.fingerprint.secrets import HIDDEN, is_secret
from autoprune.run.fingerprint.source import changed_by, is_users_code, source_text

CALLED = frozenset(("__call__", "forward"))  # the methods that are assumed to be called on an object

_SHORT = 80  # a longer value is shown by its type and digest
_LONG = 10_000  # a longer representation is not used
_DEEP = 20  # largest depth of nested values
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


@dataclass(frozen=True)
class _Way:
    """The values that contain a value, and the texts of visited values, so that a shared object is visited once."""

    around: tuple[int, ...] = ()
    met: dict[int, tuple[Any, str]] = field(default_factory=dict)  # holds the values, so that no id is reused

    def into(self, value: Any) -> _Way:
        return _Way((*self.around, id(value)), self.met)


def shown(value: Any, called: frozenset[str] = CALLED) -> str:
    """The text of a short value, or the type and digest of a longer one; `called` are methods known to be called."""
    text = canonical(value, called)
    return text if len(text) <= _SHORT else f"{type(value).__name__} {digest(text)}"


def module_of(thing: Any) -> str:
    """The name of the module that defines an object or its class."""
    if isinstance(thing, ModuleType):
        return thing.__name__
    return str(getattr(thing, "__module__", None) or type(thing).__module__)


def is_code(value: Any) -> bool:
    """Whether a value is a function, class, module, partial application or a callable object of a user's class."""
    if isinstance(value, ModuleType | FunctionType | MethodType | BuiltinFunctionType | type | functools.partial):
        return True
    return callable(value) and not isinstance(value, nn.Module) and is_users_code(type(value).__module__)


def attributes(thing: Any, called: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The attributes of an object by name, except for those that its called methods change."""
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(thing, name)]
    held = {**{name: getattr(thing, name) for name in slots}, **getattr(thing, "__dict__", {})}
    changed = changed_by(type(thing), called)
    yield from sorted((name, value) for name, value in held.items() if name not in changed)


def module_settings(module: nn.Module, way: _Way | None = None) -> list[str]:
    """The class of a module and its own attributes: numbers, words, tensors, functions, objects of user classes."""
    changed = changed_by(type(module), CALLED)
    kept = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and name not in changed and _is_setting(value)
    }
    return [
        type(module).__qualname__,
        *(f"{name}={_text(value, way or _Way())}" for name, value in sorted(kept.items())),
    ]


def _is_setting(value: Any) -> bool:
    known = (*_PLAIN, enum.Enum, torch.Tensor, np.ndarray, list, tuple, dict, set)
    return isinstance(value, known) or is_code(value) or is_users_code(type(value).__module__)


def digest(text: str | memoryview) -> str:
    """The first digits of the sha256 of a text."""
    return hashlib.sha256(text.encode() if isinstance(text, str) else text).hexdigest()[:16]


def canonical(value: Any, called: frozenset[str] = CALLED) -> str:
    """The text of a value; long parts are replaced by their digests."""
    return _text(value, _Way(), called)


def _text(value: Any, way: _Way, called: frozenset[str] = CALLED) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if type(value) in _PLAIN:
        return repr(value)
    if id(value) in way.around or len(way.around) > _DEEP:
        return "..."
    if id(value) not in way.met:
        text = _inside(value, way.into(value), called)
        way.met[id(value)] = value, text if len(text) < _LONG else f"{type(value).__name__} {digest(text)}"
    return way.met[id(value)][1]


def _inside(value: Any, inside: _Way, called: frozenset[str]) -> str:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _array(value)
    if isinstance(value, Mapping):
        pairs = [(_text(k, inside), HIDDEN if is_secret(k, v) else _text(v, inside, called)) for k, v in value.items()]
        return f"{{{', '.join(f'{k}: {v}' for k, v in sorted(pairs))}}}"
    if isinstance(value, Set):
        return f"{{{', '.join(sorted(_text(entry, inside) for entry in value))}}}"
    if isinstance(value, list | tuple | deque):
        return f"{type(value).__name__}({', '.join(_text(entry, inside, called) for entry in value)})"
    if isinstance(value, nn.Module):
        parts = [module_settings(module, inside) for module in value.modules()]
        return f"{type(value).__qualname__} {model_digest(value)} {digest(repr(parts))}"
    if is_code(value):
        return _code(value, inside, called)
    return _object(value, inside, called)


def _code(value: Any, inside: _Way, called: frozenset[str]) -> str:
    """The name of a function or class, with its source if it is the user's."""
    if isinstance(value, ModuleType):
        return value.__name__
    if isinstance(value, functools.partial):
        given = _text((value.func, value.args, value.keywords), inside)
        return f"{plugin_name(value)} {digest(given)}"
    if isinstance(value, MethodType):
        return f"{plugin_name(value)} {digest(_text((value.__func__, value.__self__), inside))}"
    if isinstance(value, FunctionType | type):
        return (
            f"{plugin_name(value)} {digest(source_text(value))}"
            if is_users_code(value.__module__)
            else plugin_name(value)
        )
    return plugin_name(value) if isinstance(value, BuiltinFunctionType) else _object(value, inside, called)


def _object(value: Any, inside: _Way, called: frozenset[str]) -> str:
    kind = type(value)
    if isinstance(value, PurePath):
        return str(value)
    if dataclasses.is_dataclass(value) or isinstance(value, SimpleNamespace) or is_users_code(kind.__module__):
        parts = [f"{name}={_text(part, inside, called)}" for name, part in attributes(value, called)]
        return f"{kind.__qualname__}({', '.join(parts)})"
    if isinstance(value, logging.Logger) or hasattr(value, "__next__"):
        return kind.__qualname__
    try:
        text = repr(value)
    except Exception:  # __repr__ may raise anything
        return kind.__qualname__
    return kind.__qualname__ if " at 0x" in text or len(text) > _LONG else text


def _array(value: torch.Tensor | np.ndarray | np.generic) -> str:
    """The type, shape and digest of an array; a single number as it is."""
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, np.ndarray) and value.dtype == object:
        return canonical(value.tolist())
    if isinstance(value, np.ndarray):
        content = np.ascontiguousarray(value)
    elif value.is_meta or value.layout != torch.strided:
        return f"tensor {tuple(value.shape)} {value.dtype} {value.layout}"
    else:
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    content_digest = digest(content.reshape(-1).view(np.uint8).data)
    return f"{type(value).__name__} {tuple(value.shape)} {value.dtype} {content_digest}"
