"""Tensors that modules keep without registering them: in attributes, and in lists, tuples and dictionaries there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def plain_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that are neither parameters nor buffers, each once, by path: "pos.table", "tables[0]"."""
    known = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, module in model.named_modules():
        for attribute, value in list(vars(module).items()):
            if _may_hold(value) and attribute not in ("_parameters", "_buffers", "_modules"):
                for path, tensor in _within(f"{name}.{attribute}" if name else attribute, value):
                    if id(tensor) not in known:
                        found.setdefault(id(tensor), (path, tensor))
    return dict(found.values())


def _may_hold(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or type(value) in (list, tuple, dict)


def _within(path: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
    elif type(value) in (list, tuple):
        for index, part in enumerate(value):
            yield from _within(f"{path}[{index}]", part)
    elif type(value) is dict:
        for key, part in value.items():
            yield from _within(f"{path}[{str(key).replace('.', '_')!r}]", part)
