"""A second input that a model can run on, made from its example."""

from __future__ import annotations

import torch

from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example


def varied(example: Example, *, integers: bool = True) -> Example:
    """The call with its values in another order: numbers, and tokens unless they are left out, back to front.

    So they stay in their range. Numbers that read the same in both directions are scaled, zeros raised; flags, and
    integers that are all the same, stay as they are.
    """

    def vary(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.bool or not (integers or tensor.is_floating_point() or tensor.is_complex()):
            return tensor
        if tensor.is_floating_point() or tensor.is_complex():
            turned = tensor.flip(tuple(range(tensor.dim())))
            scaled = tensor * 0.75 if tensor.any() else tensor + 0.5
            return turned if not torch.equal(turned, tensor) else scaled
        return tensor.flip(-1) if tensor.dim() else tensor

    return example.converted(vary)


def differs(first: Example, second: Example) -> bool:
    """Whether any tensor of two calls of one form differs."""
    pairs = zip(*(tensors_of((example.args, dict(example.kwargs))) for example in (first, second)), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)
