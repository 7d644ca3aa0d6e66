"""Checks that a plug-in changes neither the network that it gets nor the process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

MOST_NAMES = 4  # largest number of changes that a message names


def state_of(model: nn.Module) -> dict[str, Any]:
    """Copies of a model's tensors and their gradients, and the class, mode, settings and hooks of every module."""
    state: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        where = f" of {name!r}" if name else ""
        state["the class" + where] = type(module)
        state["the training mode" + where] = module.training
        state["the settings" + where] = module.extra_repr()
        state["the hooks" + where] = len(module._forward_hooks) + len(module._forward_pre_hooks)
    tensors: dict[str, torch.Tensor | None] = dict(model.named_buffers(remove_duplicate=False))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tensors[name], tensors[f"the gradient of {name}"] = parameter, parameter.grad
        state[f"requires_grad of {name}"] = parameter.requires_grad
    return state | {name: None if tensor is None else tensor.detach().clone() for name, tensor in tensors.items()}


def changed_in(model: nn.Module, before: dict[str, Any]) -> str:
    """The names of the parts of a model that differ from `before`; empty if none do."""
    now = state_of(model)
    names = [name for name in dict.fromkeys((*before, *now)) if not _same(before.get(name), now.get(name))]
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def equal(left: Any, right: Any) -> bool:
    """Whether two tensors have the same shape, dtype, device and values; NaN equals NaN."""
    if left.shape != right.shape or left.dtype != right.dtype or left.device != right.device:
        return False
    return bool(((left == right) | ((left != left) & (right != right))).all())


def _same(left: Any, right: Any) -> bool:
    import torch

    both = isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor)
    return equal(left, right) if both else left is right or (type(left) is type(right) and left == right)


@contextmanager
def same_process(subject: str) -> Iterator[None]:
    """Asserts that the block does not change the current directory and torch's settings; restores them in any case."""
    import torch

    def now() -> dict[str, Any]:
        return {
            "the current directory": os.getcwd(),
            "torch's default dtype": torch.get_default_dtype(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's number of threads": torch.get_num_threads(),
        }

    before = now()
    try:
        yield
        after = now()
    finally:
        os.chdir(before["the current directory"])
        torch.set_default_dtype(before["torch's default dtype"])
        torch.set_grad_enabled(before["torch's gradient mode"])
        torch.set_num_threads(before["torch's number of threads"])
    changed = [f"{name} from {before[name]} to {after[name]}" for name in before if after[name] != before[name]]
    assert not changed, f"{subject} changed {' and '.join(changed)}. Do not change them, or restore them"
