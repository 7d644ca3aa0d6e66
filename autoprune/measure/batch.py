"""One batch of examples, as fitness functions get it."""

from __future__ import annotations

from collections.abc import Callable
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

    def placed(self, place: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        """The same batch with every tensor moved by `place`, to another device for example."""
        target, dense = (None if x is None else place(x) for x in (self.target, self.dense))
        return Batch(tuple(map(place, self.inputs)), target, dense)
