"""The CPU in the part of an accelerator, for tests without one: which tensors would be there, and what is fetched."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

FETCHING = {"item", "tolist", "cpu", "numpy", "equal", "nonzero", "__bool__", "__float__", "__int__", "__index__"}


class Pretended(TorchFunctionMode):
    """Pretends that all tensors are on an accelerator but those that were made, or brought, on the machine.

    On the machine are what `cpu` returns, what is made without a device, and what is computed from these alone. Tensors
    that were made before are on the accelerator.

    Args:
        doubles: whether the accelerator has float64; if not, making a float64 tensor there is a TypeError, as on mps.

    Attributes:
        fetches: how often values, or sizes that depend on them, were fetched from the accelerator.
    """

    def __init__(self, *, doubles: bool = True) -> None:
        super().__init__()
        self.doubles, self.fetches = doubles, 0
        self._here = WeakIdKeyDictionary()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        read = args[:1] if name in ("__deepcopy__", "__getitem__") else (args, kwargs)  # not a memo, and no indices
        given = [leaf for leaf in tree_leaves(read) if isinstance(leaf, torch.Tensor)]
        there = any(tensor not in self._here for tensor in given) if given else "device" in kwargs
        self.fetches += there and name in FETCHING
        output = func(*args, **kwargs)
        if name == "cpu" and there:
            output, there = output.clone(), False
        for tensor in (leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)):
            self._note(tensor, there, name)
        return output

    def _note(self, tensor: torch.Tensor, there: bool, name: str) -> None:
        if there and not self.doubles and tensor.dtype == torch.float64:
            raise TypeError(f"{name} makes a float64 tensor of shape {tuple(tensor.shape)} on a device without float64")
        if there:
            self._here.pop(tensor, None)
        else:
            self._here[tensor] = True
