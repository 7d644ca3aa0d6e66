"""The data of a search: three disjoint sets, made once, in a fixed order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from autoprune.data.checks import describe
from autoprune.data.convert import Array, check_whole, columns_of, cut, to_batch
from autoprune.measure.batch import Batch


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """What a search sees, and when.

    `calibrate` feeds statistics and weight updates and is used without labels; `select` guides the search; `report`
    is only ever seen by the final front; `train`, where given, is for fine-tuning alone. Batches stay on the CPU and
    keep their order, so that a score is the same number every time.

    `description` is what the run folder records: whatever the reader puts in (a seed, index lists) and, under "sets"
    and "shared", sizes, a sha256 of each set and counts of duplicates between sets. All of it is plain JSON.

    Raises DataError for empty sets, NaN or infinite values, unnormalised or double-precision inputs, missing targets,
    differing lengths or shapes, and sets that share more than 1 % of their examples. A `train` that is a tuple of
    batches is checked like the rest; any other iterable is taken as it is.
    """

    calibrate: tuple[Batch, ...]
    select: tuple[Batch, ...]
    report: tuple[Batch, ...]
    train: Iterable[Any] | None = None
    description: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sets = {"calibrate": self.calibrate, "select": self.select, "report": self.report}
        if isinstance(self.train, tuple):
            sets["train"] = self.train
        object.__setattr__(self, "description", {**self.description, **describe(sets)})

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={facts['examples']}" for name, facts in self.description["sets"].items())
        return f"Data({sizes} examples)"

    @property
    def example(self) -> tuple[torch.Tensor, ...]:
        """The model's inputs for one example, (1, ...) each: the first of calibrate."""
        return tuple(x[:1] for x in self.calibrate[0].inputs)

    def training(self, batches: int) -> tuple[tuple[Batch, ...], str]:
        """What there is to train on in so many steps, and its sha256: `train` as a whole where it is a tuple, else its
        first `batches`, read now and held in memory.

        Raises DataError for what would be wrong in any set, examples of select or report among them.
        """
        taken = self.train if isinstance(self.train, tuple) else itertools.islice(self.train or (), batches)
        train = tuple(to_batch(item, f"train, batch {i}", labelled=True) for i, item in enumerate(taken))
        sets = {"calibrate": self.calibrate, "select": self.select, "report": self.report, "train": train}
        return train, describe(sets)["sets"]["train"]["sha256"]

    @staticmethod
    def from_arrays(
        calibrate: Array | Sequence[Array],
        select: Sequence[Array],
        report: Sequence[Array],
        train: Sequence[Array] | Iterable[Any] | None = None,
        batch_size: int = 100,
        *,
        description: Mapping[str, Any] | None = None,
    ) -> Data:
        """The sets from numpy arrays or tensors, copied: `Data.from_arrays((x,), (x2, y2), (x3, y3))`.

        Each array has one row an example. All arrays of calibrate are inputs; the last one of select, report and
        train is the target, those before it are inputs. Integer targets become int64. A `train` that is neither a
        tuple nor a list is kept as it is (a DataLoader, for example).
        """
        check_whole("batch_size", batch_size, 1)
        if isinstance(train, tuple | list):
            train = cut("train", train, batch_size, labelled=True)
        return Data(
            calibrate=cut("calibrate", columns_of(calibrate), batch_size, labelled=False),
            select=cut("select", columns_of(select), batch_size, labelled=True),
            report=cut("report", columns_of(report), batch_size, labelled=True),
            train=train,
            description=description or {},
        )

    @staticmethod
    def from_loaders(
        calibrate: Iterable[Any],
        select: Iterable[Any],
        report: Iterable[Any],
        train: Iterable[Any] | None = None,
    ) -> Data:
        """The sets from finite iterables of batches, each read through once and kept in that order.

        An item is a tensor (inputs alone), a tuple or list of tensors whose last of several is the target, or a
        Batch. Targets of calibrate are dropped. `train` is kept as it is.
        """
        return Data(
            calibrate=_collect("calibrate", calibrate, labelled=False),
            select=_collect("select", select, labelled=True),
            report=_collect("report", report, labelled=True),
            train=train,
        )


def _collect(name: str, loader: Iterable[Any], *, labelled: bool) -> tuple[Batch, ...]:
    return tuple(to_batch(item, f"{name}, batch {i}", labelled=labelled) for i, item in enumerate(loader))
