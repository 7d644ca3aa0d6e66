"""Divides a long text of tokens into sequences of one length, and those into the sets of a search."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from autoprune.data.convert import Array, check_whole, to_tensor
from autoprune.errors import DataError
from autoprune.measure.batch import Batch


@dataclass(frozen=True)
class SequencePlan:
    """The number of sequences of each set, and their length in tokens. `seed` decides which belong to which set."""

    length: int
    calibrate: int
    select: int
    report: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("length", 2), ("calibrate", 1), ("select", 1), ("report", 1), ("batch_size", 1)):
            check_whole(name, getattr(self, name), least)
        check_whole("seed", self.seed, 0)

    def divided(self, count: int, where: str) -> dict[str, np.ndarray]:
        """The numbers of the sequences of each set, of `count` in the order of the text.

        The report set is the end of the text, so that no report sequence continues one that guided the search, except
        at one place. The others are drawn from the rest.

        Raises:
            DataError: there are too few.
        """
        needed = self.calibrate + self.select + self.report
        if count < needed:
            raise DataError(
                f"{where}: expected at least {needed:,} sequences (calibrate {self.calibrate:,}, select "
                f"{self.select:,}, report {self.report:,}), got {count:,}. Give a longer text, or take shorter or "
                "fewer sequences."
            )
        rest = np.random.default_rng(self.seed).permutation(count - self.report)
        calibrate, select, train = np.split(rest, [self.calibrate, self.calibrate + self.select])
        return {"calibrate": calibrate, "select": select, "report": np.arange(count)[-self.report :], "train": train}

    def batches(self, rows: torch.Tensor) -> tuple[Batch, ...]:
        """The batches of (n, length) sequences, which are their own targets."""
        parts = (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))
        return tuple(Batch((part,), part.clone()) for part in parts)


def sequences(ids: Array, plan: SequencePlan, where: str) -> torch.Tensor:
    """(n, length) int64 sequences of a text of (tokens,) ids; what is left at its end is dropped.

    Raises:
        DataError: the ids are not whole numbers in one dimension, or fewer than one sequence.
    """
    tokens, length = to_tensor(ids, where), plan.length
    if tokens.dim() != 1 or tokens.is_floating_point() or tokens.is_complex() or tokens.dtype is torch.bool:
        raise DataError(
            f"{where}: expected token ids as whole numbers in one dimension, got {tokens.dtype} of shape "
            f"{tuple(tokens.shape)}"
        )
    if len(tokens) < length:
        raise DataError(
            f"{where}: expected a text of at least one sequence of {length:,} tokens, got {len(tokens):,} tokens. Give "
            "a longer text or take a smaller length."
        )
    count = len(tokens) // length
    return tokens.long()[: count * length].view(count, length)
