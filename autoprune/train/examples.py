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
    """Training examples, the size of a batch, and the checksum `sha256` of the examples.

    Every epoch has its own order, which follows from `seed`, the same for all networks and runs. The last incomplete
    batch is dropped.
    """

    examples: Batch
    size: int
    sha256: str = ""
    seed: int = 0

    @staticmethod
    def of(batches: Sequence[Batch], sha256: str = "", size: int | None = None, seed: int = 0) -> TrainingSet:
        """Joins the examples of the batches.

        Args:
            batches: the examples.
            sha256: their checksum.
            size: the largest size of a batch, which is smaller for fewer examples; None for that of the largest given.
            seed: the seed of their orders.

        Raises:
            DataError: the batches cannot be joined.
        """
        whole = gathered(batches)
        largest = max(batch.examples for batch in batches)
        return TrainingSet(whole, min(size or largest, whole.examples), sha256, seed)

    @property
    def per_epoch(self) -> int:
        """The number of batches of an epoch."""
        return self.examples.examples // self.size

    @property
    def least(self) -> torch.Tensor:
        """(c,) the least value of each channel of the first input, which is black in images."""
        return self.examples.inputs[0].amin(dim=(0, 2, 3))

    @property
    def statistics_inputs(self) -> list[tuple[torch.Tensor, ...]]:
        """The inputs that batch norm statistics are re-estimated on."""
        batches = min(math.ceil(STATISTICS_EXAMPLES / self.size), self.examples.examples // self.size)
        return [self.batch(step).inputs for step in range(batches)]

    def batch(self, step: int) -> Batch:
        """The training batch used at `step` (0-based)."""
        count = self.examples.examples
        epoch, place = divmod(step, self.per_epoch)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch + (self.seed << 32)))
        rows = order[place * self.size : (place + 1) * self.size]
        return self.examples.placed(lambda x: x[rows.to(x.device)])
