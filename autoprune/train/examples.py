"""The examples that networks are trained on, in the same batches for every network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from autoprune.measure.batch import Batch, gathered

STATISTICS_EXAMPLES = 500  # training examples that batch norm statistics are re-estimated on after training


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Labelled examples, the size of a batch, and the checksum `sha256` of the examples.

    Every epoch has its own order, the same for all networks and runs with the same `seed`. The last incomplete batch is
    dropped.
    """

    examples: Batch
    size: int
    sha256: str = ""
    seed: int = 0

    @staticmethod
    def of(batches: Sequence[Batch], sha256: str = "") -> TrainingSet:
        """Joins the examples of the batches; the largest gives the batch size. DataError if they cannot be joined."""
        return TrainingSet(gathered(batches), max(batch.examples for batch in batches), sha256)

    @property
    def statistics_inputs(self) -> list[tuple[torch.Tensor, ...]]:
        """The inputs that batch norm statistics are re-estimated on."""
        batches = min(math.ceil(STATISTICS_EXAMPLES / self.size), self.examples.examples // self.size)
        return [self.batch(step).inputs for step in range(batches)]

    def batch(self, step: int) -> Batch:
        """The training batch used at `step` (0-based)."""
        count = self.examples.examples
        epoch, place = divmod(step, count // self.size)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch + (self.seed << 32)))
        rows = order[place * self.size : (place + 1) * self.size]
        return self.examples.placed(lambda x: x[rows.to(x.device)])
