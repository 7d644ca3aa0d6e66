"""One batch of examples, as fitness functions get it."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """Inputs of the model, and what is known about them.

    `inputs` are the model's positional arguments, (b, ...) each; `target` is (b,) class labels or whatever the
    fitness expects, None where unlabelled; `dense` is the dense network's output for the inputs, filled in by the
    scorer so that a fitness can compare with it.
    """

    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor | None = None
    dense: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        target = None if self.target is None else self.target.to(device)
        return Batch(tuple(x.to(device) for x in self.inputs), target, self.dense)
