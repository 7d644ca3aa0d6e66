"""The data of a search: three disjoint sets, made once, in a fixed order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from autoprune.data.checks import describe
from autoprune.data.convert import Array, as_columns, check_whole, to_batch, to_batches
from autoprune.data.padding import from_dict, without_padding
from autoprune.data.tokens import SequencePlan, sequences
from autoprune.errors import DataError
from autoprune.measure.batch import Batch


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """The data sets of a search.

    Batches stay on the CPU and keep their order, so that scores are reproducible. `description` is recorded in the run
    folder as plain JSON: the reader's entries (a seed, index lists) and, under "sets" and "shared", sizes, a sha256 of
    each set and counts of duplicates between sets.

    Attributes:
        calibrate: for statistics and weight updates; labels are not used.
        select: guides the search.
        report: only evaluated for the final front.
        train: optional, for fine-tuning alone. A tuple of batches is checked like the other sets; any other iterable is
            kept unchecked.
        description: JSON values to record.

    Raises:
        DataError: a set is empty or holds NaN, infinity, unnormalised or double-precision inputs; targets are missing;
            lengths or shapes differ; or two sets share more than 1 % of their examples.
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

    def training(self, batches: int | None) -> tuple[tuple[Batch, ...], str]:
        """The batches for a number of training steps, and their sha256.

        All of `train` if it is a tuple or `batches` is None, else its first `batches`, read now and held in memory.

        Raises:
            DataError: they fail the checks of a set, or share examples with select or report.
        """
        taken = self.train if isinstance(self.train, tuple) else itertools.islice(self.train or (), batches)
        train = tuple(_as_batch(item, f"train, batch {i}", labelled=True) for i, item in enumerate(taken))
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
        groups: Mapping[str, Array] | None = None,
        description: Mapping[str, Any] | None = None,
    ) -> Data:
        """Makes the sets from numpy arrays or tensors, copied: `Data.from_arrays((x,), (x2, y2), (x3, y3))`.

        Each array has one example per row. All arrays of calibrate are inputs; the last one of the other sets is the
        target, those before it are inputs. Integer targets become int64.

        Args:
            calibrate: the inputs, a single array or several.
            select: inputs and target.
            report: inputs and target.
            train: inputs and target; neither a tuple nor a list (a DataLoader, for example) is kept as it is.
            batch_size: examples per batch.
            groups: the group of each example, whole numbers from 0, for the set "report", "select" or both, as in
                `{"report": age}`. The harm of pruning is then also measured by group. Without them the groups are the
                classes.
            description: JSON values to record.

        Returns:
            The sets.

        Raises:
            DataError: groups are of another length than the labels or of another set; or see the class.
        """
        check_whole("batch_size", batch_size, 1)
        groups = _checked_groups(groups)
        if isinstance(train, tuple | list):
            train = to_batches("train", train, batch_size, labelled=True)
        return Data(
            calibrate=to_batches("calibrate", as_columns(calibrate), batch_size, labelled=False),
            select=to_batches("select", as_columns(select), batch_size, labelled=True, group=groups.get("select")),
            report=to_batches("report", as_columns(report), batch_size, labelled=True, group=groups.get("report")),
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
        """Makes the sets from finite iterables of batches, each read once and kept in order.

        An item is a tensor (inputs alone), a tuple or list of tensors whose last of several is the target, a dictionary
        of a tokenizer with `input_ids`, `attention_mask` and `labels`, or a Batch. Targets of calibrate are dropped,
        and so is the padding of its dictionaries. Dictionaries without labels are their own targets.

        Args:
            calibrate: batches without or with targets.
            select: batches with targets.
            report: batches with targets.
            train: batches with targets; kept as it is.

        Returns:
            The sets.

        Raises:
            DataError: an item is anything else; or see the class.
        """
        return Data(
            calibrate=_collect("calibrate", calibrate, labelled=False),
            select=_collect("select", select, labelled=True),
            report=_collect("report", report, labelled=True),
            train=train,
        )

    @staticmethod
    def from_tokens(
        ids: Array,
        length: int = 512,
        calibrate: int = 128,
        select: int = 128,
        report: int = 128,
        batch_size: int = 8,
        seed: int = 0,
        *,
        description: Mapping[str, Any] | None = None,
    ) -> Data:
        """Makes the sets of a language model from the token ids of one long text: `Data.from_tokens(ids, length=512)`.

        The text is cut into sequences of one length, which are their own targets (measure.language). The report set is
        the end of the text; calibrate and select are drawn from the rest, whose remainder is train.

        Args:
            ids: (n,) token ids.
            length: the number of tokens in a sequence.
            calibrate: the number of calibration sequences.
            select: the number of selection sequences.
            report: the number of report sequences.
            batch_size: sequences per batch.
            seed: decides which sequence belongs to which set.
            description: JSON values to record.

        Returns:
            The sets.

        Raises:
            DataError: the text is too short, or see the class.
        """
        plan = SequencePlan(length, calibrate, select, report, batch_size, seed)
        return sets_of(ids, plan, "ids", description or {"reader": "tokens"})


def sets_of(ids: Array, plan: SequencePlan, where: str, description: Mapping[str, Any]) -> Data:
    """The sets that a plan takes from the token ids of a text; `where` says in messages where they come from."""
    rows, facts = sequences(ids, plan, where), {"length": plan.length, "seed": plan.seed}
    indices = plan.divided(len(rows), where)
    sets = {name: plan.batches(rows[chosen]) for name, chosen in indices.items()}
    recorded = {name: indices[name].tolist() for name in ("calibrate", "select", "report")}
    return Data(
        tuple(Batch(batch.inputs) for batch in sets["calibrate"]),
        sets["select"],
        sets["report"],
        sets["train"] or None,
        {**description, **facts, "indices": recorded},
    )


def _checked_groups(groups: Mapping[str, Array] | None) -> Mapping[str, Array]:
    """The groups by set. DataError if they are anything else."""
    found = {} if groups is None else groups
    if not isinstance(found, Mapping) or not {*found} <= {"select", "report"}:
        got = f"the sets {list(found)}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        raise DataError(f"groups: expected arrays for the sets select and report, as in {{'report': age}}, got {got}")
    return found


def _collect(name: str, loader: Iterable[Any], *, labelled: bool) -> tuple[Batch, ...]:
    """The batches of a loader; those of dictionaries without labels, which are for statistics, without padding."""
    found: list[Batch] = []
    for index, item in enumerate(loader):
        where = f"{name}, batch {index}"
        batch = _as_batch(item, where, labelled=labelled)
        found += without_padding(batch) if isinstance(item, Mapping) and not labelled else [batch]
    return tuple(found)


def _as_batch(item: Any, where: str, *, labelled: bool) -> Batch:
    make = from_dict if isinstance(item, Mapping) else to_batch
    return make(item, where, labelled=labelled)
