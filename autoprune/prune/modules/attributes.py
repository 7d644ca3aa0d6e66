"""The integers that modules keep: found by path, and set to new values."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\['([^']*)'\]")
_OWN = frozenset(vars(nn.Module()))  # attributes of every module
_DEEPEST = 4
PathStep = str | int | tuple[str]  # an attribute, an index, a key


def numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Yields the path and value of every integer a module keeps.

    As an attribute, in a list, tuple, dictionary or dataclass, in an object of a class called "...Config", "...Args" or
    "...Arguments", or nested in these. Names with a leading underscore are included if they denote a width.
    """
    for name, value in list(vars(module).items()):
        if name not in _OWN and (not name.startswith("_") or says_width(name)):
            yield from _within(name, value, _DEEPEST)


def _within(path: str, value: Any, deepest: int) -> Iterator[tuple[str, int]]:
    if type(value) is int:  # neither bool nor an enumeration's member
        yield path, value
    elif deepest:
        for inner, part in _parts(path, value):
            yield from _within(inner, part, deepest - 1)


def _parts(path: str, value: Any) -> list[tuple[str, Any]]:
    """The parts of a value that are looked into, with their paths."""
    if type(value) in (list, tuple):
        return [(f"{path}[{index}]", part) for index, part in enumerate(value)]
    if isinstance(value, dict):
        items = list(dict.items(value))
        return [(f"{path}['{key}']", part) for key, part in items if isinstance(key, str) and "'" not in key]
    if _is_record(value):
        return [(f"{path}.{name}", part) for name, part in vars(value).items() if not name.startswith("_")]
    return []


def _is_record(value: Any) -> bool:
    named = type(value).__name__.endswith(("Config", "Args", "Arguments"))
    return hasattr(value, "__dict__") and (named or (dataclasses.is_dataclass(value) and not isinstance(value, type)))


_WIDTHS = frozenset(
    (
        *("channel", "channels", "chs", "chans", "ch", "planes", "inplanes", "outplanes", "filters", "width", "widths"),
        *(
            "feature",
            "features",
            "feats",
            "dim",
            "dims",
            "embed",
            "embd",
            "emb",
            "hidden",
            "model",
            "ff",
            "ffn",
            "inner",
        ),
        *("intermediate", "neurons", "units"),
    )
)
_OTHERS = frozenset(  # next to a word for widths these change its meaning: `num_hidden_layers`, `max_width`
    (
        *(
            "kernel",
            "stride",
            "padding",
            "image",
            "img",
            "patch",
            "window",
            "classes",
            "vocab",
            "layers",
            "layer",
            "depth",
        ),
        *(
            "depths",
            "groups",
            "group",
            "position",
            "positions",
            "pos",
            "len",
            "length",
            "max",
            "min",
            "dilation",
            "divisor",
        ),
        *(
            "ratio",
            "mult",
            "heads",
            "blocks",
            "levels",
            "scale",
            "factor",
            "idx",
            "id",
            "index",
            "axis",
            "rank",
            "ndim",
        ),
        *("bits", "base", "time", "token", "tokens", "experts", "type", "norm", "drop", "dropout", "max", "steps"),
    )
)


def says_width(path: str) -> bool:
    """Whether the last name in a path denotes a width, such as `num_features`, `in_planes` or `hidden_size`."""
    words = set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", last_name(path)).lower().strip("_").split("_"))
    return bool(words & _WIDTHS) and not words & _OTHERS


def last_name(path: str) -> str:
    """The last name in a path; for an element of a list, the list's."""
    parts: list[str] = re.findall(r"[^.\[\]']+", path)
    return next(part for part in reversed(parts) if not part.isdigit())


def steps_of(path: str) -> list[PathStep]:
    return [name or ((key,) if not index else int(index)) for name, index, key in _STEP.findall(path)]


def get(module: nn.Module, path: str) -> Any:
    """The value at a path such as "num_heads", "normalized_shape[0]", "config.hidden_size" or "sizes['width']"."""
    value: Any = module
    for step in steps_of(path):
        value = _at(value, step)
    return value


def place_of(module: nn.Module, path: str) -> tuple[int, tuple[PathStep, ...]]:
    """The id of the object that holds an integer, and the steps from there; objects may be shared by modules."""
    steps = steps_of(path)
    holder, way, value = module, tuple(steps), module
    for index, step in enumerate(steps[:-1]):
        value = _at(value, step)
        if not isinstance(value, tuple):
            holder, way = value, tuple(steps[index + 1 :])
    return id(holder), way


def put(module: nn.Module, path: str, number: int) -> None:
    """Sets the value at a path; a tuple is replaced by a changed one."""
    _changed(module, steps_of(path), number)


def _at(value: Any, step: PathStep) -> Any:
    return getattr(value, step) if isinstance(step, str) else value[step if isinstance(step, int) else step[0]]


def _changed(value: Any, steps: Sequence[PathStep], number: int) -> Any:
    """The value with the number set at the end of the steps; the same object, except for tuples."""
    if not steps:
        return number
    step, inner = steps[0], _changed(_at(value, steps[0]), steps[1:], number)
    if isinstance(step, str):
        frozen = dataclasses.is_dataclass(value)
        object.__setattr__(value, step, inner) if frozen else setattr(value, step, inner)
    elif isinstance(value, tuple):
        parts = [*value[: int(step)], inner, *value[int(step) + 1 :]]  # type: ignore[arg-type]  # no key
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    else:
        value[step if isinstance(step, int) else step[0]] = inner
    return value
