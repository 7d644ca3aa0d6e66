"""Borrowing what belongs to others, a model's modes, torch's threads, random states: as it was, it is put back."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from autoprune.core.process import numpy_seeded


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Every module in eval mode inside, each in its own mode again afterwards, also after an exception."""
    with modes_put_back(model):
        model.eval()
        yield


@contextlib.contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Every module in train mode inside, each in its own mode again afterwards, also after an exception."""
    with modes_put_back(model):
        model.train()
        yield


@contextlib.contextmanager
def modes_put_back(model: nn.Module) -> Iterator[None]:
    """Every module in its own mode again afterwards, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def on_copies(model: nn.Module) -> Iterator[None]:
    """The model runs on copies of the tensors it is given inside, since its forward may change them.

    Whatever else it is given, such as a cache that it fills, is the caller's own.
    """

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(map(_own, args)), {name: _own(value) for name, value in kwargs.items()}

    handle = model.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _own(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value


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


@contextlib.contextmanager
def without_attention_fast_path() -> Iterator[None]:
    """torch's layers of attention run operator by operator, without nested tensors and fused kernels of whole layers.

    What these return for padding differs from what the layers themselves compute, and hooks turn them off.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """cuDNN takes kernels only that give the same bits every time."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        yield


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global random states of Python, numpy and torch start from the seed inside; afterwards they are as before."""
    python, tensors = random.getstate(), torch.get_rng_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else []
    try:
        random.seed(seed)
        torch.manual_seed(seed)
        with numpy_seeded(seed):
            yield
    finally:
        random.setstate(python)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)
