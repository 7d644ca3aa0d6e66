"""Context managers that change a model's modes, torch's threads or random states, and restore them afterwards."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from autoprune.core.process import numpy_seeded


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Sets every module to eval mode inside, and restores each module's own mode, also after an exception."""
    with modes_put_back(model):
        model.eval()
        yield


@contextlib.contextmanager
def training(model: nn.Module, apart: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Sets every module to train mode inside, and restores each module's own mode, also after an exception.

    The modules `apart` are in eval mode.
    """
    with modes_put_back(model):
        model.train()
        for module in apart:
            module.eval()
        yield


@contextlib.contextmanager
def modes_put_back(model: nn.Module) -> Iterator[None]:
    """Restores every module's own mode afterwards, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def on_copies(model: nn.Module) -> Iterator[None]:
    """Runs the model on copies of its input tensors inside, since its forward may change them.

    Other inputs, such as a cache that it fills, are passed as they are.
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
    """Sets the number of intra-op threads inside (None: unchanged) and restores it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Computes full float32 products inside: TensorFloat-32, cuDNN's default, rounds to 1e-3."""
    products = torch.backends.cuda.matmul.allow_tf32  # False unless the user has set it
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = products


@contextlib.contextmanager
def without_attention_fast_path() -> Iterator[None]:
    """Runs torch's attention layers operator by operator, without nested tensors and fused kernels of whole layers.

    For padding, the fused kernels return other values than the layers themselves, and hooks disable them.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Restricts cuDNN to kernels that are deterministic to the bit."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True):
        yield


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds the global random states of Python, numpy and torch inside, and restores them afterwards."""
    python, tensors = random.getstate(), torch.get_rng_state()
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = torch.cuda.get_rng_state_all() if used else []
    try:
        random.seed(seed)
        if torch.accelerator.is_available():
            torch.manual_seed(seed)
        else:  # without the traceback that torch.manual_seed takes for an accelerator that might come later
            torch.default_generator.manual_seed(seed)
        with numpy_seeded(seed):
            yield
    finally:
        random.setstate(python)
        torch.set_rng_state(tensors)
        if devices:
            torch.cuda.set_rng_state_all(devices)
