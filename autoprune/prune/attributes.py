"""The integers that modules keep for themselves: found by path, and put back changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def numbers(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Path and value of every integer a module keeps: as an attribute, in a list or tuple, in a config object."""
    for name, value in list(vars(module).items()):
        if not name.startswith("_"):
            yield from _within(name, value)


def _within(path: str, value: Any) -> Iterator[tuple[str, int]]:
    if _is_number(value):
        yield path, value
    elif type(value) in (list, tuple):
        for index, part in enumerate(value):
            if _is_number(part):
                yield f"{path}[{index}]", part
    elif type(value).__name__.endswith(("Config", "Args", "Arguments")) and hasattr(value, "__dict__"):
        for name, part in list(vars(value).items()):
            if _is_number(part) and not name.startswith("_"):
                yield f"{path}.{name}", part


def _is_number(value: object) -> bool:
    return type(value) is int  # no bool, no member of an enumeration


def get(module: nn.Module, path: str) -> Any:
    """What a path such as "num_heads", "normalized_shape[0]" or "config.hidden_size" leads to."""
    value: Any = module
    for name, index in _STEP.findall(path):
        value = getattr(value, name) if name else value[int(index)]
    return value


def put(module: nn.Module, path: str, number: int) -> None:
    """Sets what a path leads to; a tuple is replaced by a changed one."""
    head, _, last = path.rpartition(".")
    holder = get(module, head) if head else module
    name, *indices = [n or i for n, i in _STEP.findall(last)]
    if not indices:
        setattr(holder, name, number)
        return
    sequence = getattr(holder, name)
    changed = [number if index == int(indices[0]) else part for index, part in enumerate(sequence)]
    setattr(holder, name, type(sequence)(changed))
