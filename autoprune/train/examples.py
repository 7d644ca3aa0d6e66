"""The examples that networks are trained on, in batches that are the same for all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autoprune.measure.batch import Batch, gathered

SETTLING = 500  # training examples that batch norms are re-estimated on afterwards


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Labelled examples and how many make a batch; `sha256` tells them from others.

    Every pass is in an order of its own, the same for all networks and runs; the rest that fills no batch is left out.
    """

    examples: Batch
    size: int
    sha256: str = ""

    @staticmethod
    def of(batches: Sequence[Batch], sha256: str = "") -> TrainingSet:
        """All examples of the batches, in batches as large as the largest. DataError where they are not alike."""
        return TrainingSet(gathered(batches), max(batch.examples for batch in batches), sha256)

    @property
    def settling(self) -> list[tuple[torch.Tensor, ...]]:
        """The inputs that batch norms are re-estimated on."""
        batches = min(math.ceil(SETTLING / self.size), self.examples.examples // self.size)
        return [self.batch(step).inputs for step in range(batches)]

    def batch(self, step: int) -> Batch:
        """That of a step, counted from 0."""
        count = self.examples.examples
        epoch, place = divmod(step, count // self.size)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
        rows = order[place * self.size : (place + 1) * self.size]
        return self.examples.placed(lambda x: x[rows.to(x.device)])
