"""Divides the examples of two splits into the sets of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from autoprune.data.convert import check_whole
from autoprune.data.sets import Data
from autoprune.data.splits import Images, Split
from autoprune.errors import DataError
from autoprune.measure.batch import Batch

Prepare = Callable[[np.ndarray], torch.Tensor]


@dataclass(frozen=True)
class SplitPlan:
    """The number of examples of each set. `report` None takes the whole split; `seed` decides the assignment."""

    calibrate: int
    select: int
    report: int | None
    batch_size: int
    seed: int

    def indices(self, train: Split, report: Split) -> dict[str, np.ndarray]:
        """Positions by set: calibrate, select and train (the remainder) partition the training split.

        Raises:
            DataError: a split has fewer examples than requested.
        """
        check_whole("batch_size", self.batch_size, 1)
        check_whole("seed", self.seed, 0)
        for name, count in (("calibrate", self.calibrate), ("select", self.select)):
            _check_count(name, count, train)
        _check_count("calibrate + select", self.calibrate + self.select, train)
        order = np.random.default_rng(self.seed).permutation(len(train.labels))
        calibrate, select, rest = np.split(order, [self.calibrate, self.calibrate + self.select])
        return {"calibrate": calibrate, "select": select, "train": rest, "report": self._report(report)}

    def _report(self, split: Split) -> np.ndarray:
        if self.report is None:
            return np.arange(len(split.labels))
        _check_count("report", self.report, split)
        # a different random stream, or splits of one size would give the same choice
        return np.random.default_rng([self.seed, 1]).permutation(len(split.labels))[: self.report]


def _check_count(name: str, count: int, split: Split) -> None:
    check_whole(name, count, 1)
    if count > len(split.labels):
        raise DataError(
            f"{split.where}: expected at most the {len(split.labels)} examples there for {name}, got {count}"
        )


def make_data(train: Split, report: Split, plan: SplitPlan, prepare: Prepare, description: Mapping[str, Any]) -> Data:
    """The sets that a plan takes from a training split and a report split; the rest of training is streamed."""
    indices = plan.indices(train, report)
    images = train.open()

    def batches(images: Images, split: Split, name: str) -> Iterator[Batch]:
        return _batches(images, split.labels, indices[name], plan.batch_size, prepare)

    recorded: dict[str, Any] = {name: indices[name].tolist() for name in ("calibrate", "select")}
    recorded["report"] = "all" if plan.report is None else indices["report"].tolist()
    return Data(
        calibrate=tuple(Batch(batch.inputs) for batch in batches(images, train, "calibrate")),
        select=tuple(batches(images, train, "select")),
        report=tuple(batches(report.open(), report, "report")),
        train=Stream(train, indices["train"], plan.batch_size, prepare) if len(indices["train"]) else None,
        description={**description, "seed": plan.seed, "indices": recorded},
    )


@dataclass(frozen=True)
class Stream:
    """Training batches, read again on every iteration in one fixed shuffled order; no image is kept in memory."""

    split: Split
    indices: np.ndarray
    batch_size: int
    prepare: Prepare

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return _batches(self.split.open(), self.split.labels, self.indices, self.batch_size, self.prepare)


def _batches(
    images: Images, labels: np.ndarray, indices: np.ndarray, batch_size: int, prepare: Prepare
) -> Iterator[Batch]:
    for start in range(0, len(indices), batch_size):
        rows = indices[start : start + batch_size]
        yield Batch((prepare(images[rows]),), torch.from_numpy(labels[rows]))
