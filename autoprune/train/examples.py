"""The examples that networks are trained on, in the same batches for every network."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from autoprune.errors import DataError
from autoprune.measure.batch import Batch, gathered

STATISTICS_EXAMPLES = 500  # training examples that batch norm statistics are re-estimated on after training
HELD_OUT = 500  # the largest number of training examples that are held out to check a training on
HELD_SHARE = 5  # one of so many examples is held out at most


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Training examples, the size of a batch, and the checksum `sha256` of the examples.

    Every epoch has its own order, which follows from `seed`, the same for all networks and runs. The last incomplete
    batch is dropped. With `rows`, only the examples at these places are used.
    """

    examples: Batch
    size: int
    sha256: str = ""
    seed: int = 0
    rows: torch.Tensor | None = None

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
        return self._count // self.size

    @functools.cached_property
    def least(self) -> torch.Tensor:
        """(c,) the least value of each channel of the first input, which is black in images."""
        return self.examples.inputs[0].amin(dim=(0, 2, 3))

    @property
    def statistics_inputs(self) -> list[tuple[torch.Tensor, ...]]:
        """The inputs that batch norm statistics are re-estimated on."""
        batches = min(math.ceil(STATISTICS_EXAMPLES / self.size), self.per_epoch)
        return [self.batch(step).inputs for step in range(batches)]

    def batch(self, step: int) -> Batch:
        """The training batch used at `step` (0-based)."""
        epoch, place = divmod(step, self.per_epoch)
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(epoch + (self.seed << 32)))
        rows = order[place * self.size : (place + 1) * self.size]
        return self._at(rows if self.rows is None else self.rows[rows])

    def held_out(self) -> tuple[TrainingSet, list[Batch]]:
        """A random part of the examples, at most a fifth and 500, in batches, and the training set without it.

        Raises:
            DataError: there are fewer than five examples.
        """
        held = min(HELD_OUT, self._count // HELD_SHARE)
        if not held:
            raise DataError(
                f"expected at least {HELD_SHARE} training examples, of which one in {HELD_SHARE} is held out to check "
                f"the training, got {self._count}"
            )
        order = torch.randperm(self._count, generator=torch.Generator().manual_seed(self.seed))
        rest = order[held:].sort().values
        batches = [self._at(rows) for rows in torch.split(order[:held], self.size)]
        return replace(self, size=min(self.size, len(rest)), rows=rest), batches

    @property
    def _count(self) -> int:
        return self.examples.examples if self.rows is None else len(self.rows)

    def _at(self, rows: torch.Tensor) -> Batch:
        return self.examples.placed(lambda x: x[rows.to(x.device)])
