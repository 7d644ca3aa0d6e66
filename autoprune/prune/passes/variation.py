"""Makes a second valid input from a model's example."""

from __future__ import annotations

import torch

from autoprune.prune.passes.containers import tensors_of
from autoprune.prune.passes.examples import Example


def varied(example: Example, *, integers: bool = True) -> Example:
    """The call with the values of its tensors reversed; integers, such as tokens, unless they are left out.

    Values thus stay in their range. Floats that equal their reverse are scaled, zeros raised; booleans, and integers
    that are all equal, stay unchanged.
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
    """Whether any tensor differs between two calls of the same form."""
    pairs = zip(*(tensors_of((example.args, dict(example.kwargs))) for example in (first, second)), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs)
