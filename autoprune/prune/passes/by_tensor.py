"""Mappings from live tensors to values."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeVar, cast

import torch
from torch.utils.weak import WeakIdKeyDictionary

Value = TypeVar("Value")


ByTensor = MutableMapping[torch.Tensor, Value]


def by_tensor() -> ByTensor[Any]:
    """A mapping that does not keep its tensors alive."""
    return cast(ByTensor[Any], WeakIdKeyDictionary())
