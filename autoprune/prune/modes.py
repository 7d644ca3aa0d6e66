"""Borrowing what belongs to others, a model's modes and torch's threads: as it was, it is put back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, each in its own mode again afterwards, also after an exception."""
    with _modes_put_back(model):
        model.eval()
        yield


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Every module in train mode inside, each in its own mode again afterwards, also after an exception."""
    with _modes_put_back(model):
        model.train()
        yield


@contextlib.contextmanager
def _modes_put_back(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Runs with so many intra-op threads, or as many as there are; puts the number back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Full float32 products: TensorFloat-32, which cuDNN uses by default, rounds to 1e-3."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
