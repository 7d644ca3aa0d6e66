"""A member of a front: one network with its kept counts, costs and measurements."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import frozen
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.run.records.columns import HARM, HIGH, LOW, OWN, RATIO, SEARCH, SELECT
from autoprune.run.records.folder import as_path
from autoprune.run.results.exporter import DEFAULT, Format

if TYPE_CHECKING:
    from torch import nn

    from autoprune.train.recovery.options import Recovery


_MAPPINGS = (
    *("counts", "costs", "ratios", "report", "select", "search", "intervals", "fit", "solved", "harm", "recovered"),
)


class Builder(Protocol):
    """Builds the networks of members; a front that has the model and the data gives its members one."""

    def build(self, member: Member) -> nn.Module: ...

    def recover(self, member: Member, options: Recovery, name: str | None) -> Member: ...

    def export(self, member: Member, directory: Path, format: Format) -> None: ...


@dataclass(frozen=True, repr=False)
class Member:
    """One network of a front. A value that the table of the front has is also read by its column: `member["macs"]`.

    Nothing changes it: its mappings are read-only. A pickled member comes back as one that was read without the model.

    Attributes:
        candidate: its name, the kept counts joined by dashes.
        levels: the level of each searched unit, 0 is dense.
        counts: how many positions stay, by unit.
        costs: "macs", "params" and the costs of the job, exact.
        ratios: each cost as a share of the dense network's.
        report: measurements on the report set, which no choice depended on.
        verify_error: the largest relative difference from the masked original.
        select: measurements of the built network on the selection set.
        search: measurements on the selection set during the search, before compensation.
        intervals: the 95 % confidence intervals of values in `report`, as (low, high) by name.
        density: the share of the parameters that is not zero; None if no zeros were searched.
        fit: the results of the fit to the dense network by layer; empty if the network is as assembled from the bank.
        steps: the number of training steps; None without fine-tuning.
        emptied: the number of weights without any entry left; None if the front does not count them.
        emptied_weights: the names of these weights; None if they were not determined.
        solved: the kind of the network and the reason for it, if it answers a budget; None for a member of a front.
        harm: on the report set, the agreement with the dense network, and the recalls of classes
            (measure.harm.summary); None if the fitness is not one of classes.
        recovered: how a recovered network was trained: "name", "options", "steps", "best_step", "remark", and the
            "history" of measurements on the selection set; None for a network that was not recovered.
    """

    candidate: str
    levels: tuple[int, ...]
    counts: Mapping[str, int]
    costs: Mapping[str, float]
    ratios: Mapping[str, float]
    report: Mapping[str, float]
    verify_error: float
    select: Mapping[str, float] = field(default_factory=dict)
    search: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    density: float | None = None
    fit: Mapping[str, Any] | None = None
    steps: int | None = None
    emptied: int | None = None
    emptied_weights: tuple[str, ...] | None = None
    solved: Mapping[str, Any] | None = None
    harm: Mapping[str, Any] | None = None
    recovered: Mapping[str, Any] | None = None
    builder: Builder | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in _MAPPINGS:
            object.__setattr__(self, name, frozen(getattr(self, name)))

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "builder": None}  # a session with model and data is no part of a pickle

    def __copy__(self) -> Member:
        return self

    def __deepcopy__(self, memo: object) -> Member:
        return self

    def __getitem__(self, column: str) -> Any:
        """The value of a column of the front's table. KeyError, with the names of all columns, for another name."""
        columns = self.flat()
        if column not in columns:
            raise KeyError(f"no column {column!r}; {self.candidate} has {', '.join(columns)}")
        return columns[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.flat())

    def keys(self) -> Iterable[str]:
        """The columns of the front's table that this network has, so that `dict(member)` is a row."""
        return self.flat().keys()

    def __repr__(self) -> str:
        costs = (f"{name} {value:,.6g} ({self.ratios[name]:.4f})" for name, value in self.costs.items())
        report = (f"{name} {value:.4g}" for name, value in self.report.items())
        name = self.candidate if len(self.candidate) <= 60 else f"{self.candidate[:57]}..."
        return f"Member({name}: {', '.join((*costs, *report))})"

    @property
    def is_dense(self) -> bool:
        return not any(self.levels)

    @property
    def as_built(self) -> dict[str, float]:
        """The costs and the measurements on the selection set, by which networks are compared."""
        return {**self.select, **self.costs}

    @property
    def evaluation(self) -> Evaluation:
        """The candidate with its measurements during the search."""
        return Evaluation(Candidate(self.levels), dict(self.search))

    def build(self) -> nn.Module:
        """Builds the small network, in eval mode, with compensated weights and re-estimated batch norms.

        Raises:
            ConfigError: the member was read without the model and the data.
        """
        return self._builder().build(self)

    def recover(self, options: Recovery, name: str | None = None) -> Member:
        """Trains the network until it is deployed, and keeps the best one on the selection set.

        In a run with a folder, checkpoints and the result are in its folder recovered/NAME: a recovery that was stopped
        goes on from its last checkpoint, and one that is complete is only read. The front does not change.

        Args:
            options: the options of the training.
            name: the name of the recovery; that of the network by default.

        Returns:
            The recovered network as a member, whose `recovered` says how it was trained. It is never worse on the
            selection set than this one; if it is the same, its `recovered["remark"]` says so.

        Raises:
            ConfigError: the member was read without the model and the data, the data have no examples to train on, or
                the recovery was started with other options.

        Example:
            >>> recovered = front.pick("macs<=0.5").recover(autoprune.Recovery(epochs=10))
            >>> recovered.export("small")
        """
        return self._builder().recover(self, options, name)

    def export(self, directory: str | Path, format: Format = DEFAULT) -> None:
        """Writes the network into a new folder, atomically.

        Args:
            directory: a folder that does not exist yet.
            format: "autoprune" writes recipe.json and weights.safetensors, for `autoprune.load`; "pt2" writes
                network.pt2, a program for `torch.export.load`; "transformers" writes a checkpoint folder. It can
                also be your own exporter, or its name "module:name".

        Raises:
            ConfigError: the member was read without the model and the data.
            RunExists: the folder exists and is not empty.
        """
        self._builder().export(self, as_path("directory", directory), format)

    def _builder(self) -> Builder:
        if self.builder is None:
            raise ConfigError(
                f"expected the model and the data to build network {self.candidate}, it was read without them. Open "
                "the run with them: autoprune.open_run(path, model, data)."
            )
        return self.builder

    def flat(self) -> dict[str, Any]:
        """The row of front.csv: one value per column, without lists and mappings."""
        return {name: value for name, value in self.to_json().items() if not isinstance(value, list | dict)}

    def summary(self) -> dict[str, Any]:
        """The columns of front.csv without ends of intervals and values on the selection set."""
        hidden = {*self._ends(), *(SELECT + name for name in self.select), *(SEARCH + name for name in self.search)}
        return {name: value for name, value in self.flat().items() if name not in hidden}

    def with_harm(self) -> Member:
        """The same network with the values of `harm` among those of `report`, so that they are columns of a table.

        Values that the fitness itself reports under one of these names stay.
        """
        harm = self.harm or {}
        values = {name: harm[name] for name in HARM if name in harm and name not in self.report}
        pairs = {name: (harm[name + LOW], harm[name + HIGH]) for name in values if name + LOW in harm}
        return replace(self, report={**self.report, **values}, intervals={**self.intervals, **pairs})

    def _ends(self) -> dict[str, float]:
        pairs = ((name, *interval) for name, interval in self.intervals.items())
        return {column: end for name, low, high in pairs for column, end in ((name + LOW, low), (name + HIGH, high))}

    def to_json(self) -> dict[str, Any]:
        """The row of front.json."""
        counted = {"emptied": self.emptied}
        named = None if self.emptied_weights is None else {**counted, "emptied_weights": list(self.emptied_weights)}
        return {
            "candidate": self.candidate,
            **self.costs,
            **{name + RATIO: value for name, value in self.ratios.items()},
            **_given("density", self.density),
            **self.report,
            **self._ends(),
            **{SELECT + name: value for name, value in self.select.items()},
            **{SEARCH + name: value for name, value in self.search.items()},
            "verify_error": self.verify_error,
            "levels": list(self.levels),
            "kept": dict(self.counts),
            **({} if self.fit is None else {"fit": dict(self.fit)}),
            **(named or {}),
            **_given("finetune_steps", self.steps),
            **({} if named or self.emptied is None else counted),  # all members have the count if one has
            **({} if self.solved is None else {"solved": dict(self.solved)}),
            **({} if self.harm is None else {"harm": dict(self.harm)}),
            **({} if self.recovered is None else {"recovered": plain(self.recovered)}),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any], costs: Mapping[str, float]) -> Member:
        """Makes a member from a row of front.json; `costs` are the dense costs, whose names tell costs from others.

        Raises:
            LookupError, TypeError, ValueError: the row is invalid.
        """
        _check(row, costs)
        known = {*OWN, *costs, *(name + RATIO for name in costs)}
        values = {name: value for name, value in row.items() if name not in known}
        select, search = (_without(prefix, values) for prefix in (SELECT, SEARCH))
        rest = {name: value for name, value in values.items() if not name.startswith((SELECT, SEARCH))}
        intervals = {
            name: (rest[name + LOW], rest[name + HIGH]) for name in rest if {name + LOW, name + HIGH} <= {*rest}
        }
        ends = {name + end for name in intervals for end in (LOW, HIGH)}
        names = row.get("emptied_weights")
        return Member(
            candidate=row["candidate"],
            levels=tuple(row["levels"]),
            counts=dict(row["kept"]),
            costs={name: value for name, value in row.items() if name in costs},
            ratios={name: row[name + RATIO] for name in row if name in costs},
            report={name: value for name, value in rest.items() if name not in ends},
            select=select,
            search=search,
            intervals=intervals,
            verify_error=row["verify_error"],
            density=row.get("density"),
            fit=row.get("fit"),
            steps=row.get("finetune_steps"),
            emptied=row.get("emptied"),
            emptied_weights=None if names is None else tuple(names),
            solved=row.get("solved"),
            harm=row.get("harm"),
            recovered=row.get("recovered"),
        )


def plain(value: Any) -> Any:
    """A read-only value as lists and mappings that JSON can hold."""
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _given(name: str, value: float | None) -> dict[str, float]:
    return {} if value is None else {name: value}


def _without(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values whose names begin with a prefix, by their names without it."""
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _check(row: Mapping[str, Any], costs: Mapping[str, float]) -> None:
    """Raises an error if a row of front.json lacks a required value."""
    if not (isinstance(row["candidate"], str) and {*map(type, row["levels"])} <= {int}):
        raise ValueError(f"expected a name and levels of a network, got {row['candidate']!r}, {row['levels']!r}")
    if {*map(type, row["kept"].values())} - {int}:
        raise ValueError(f"expected kept counts by unit, got {row['kept']!r}")
    numeric = [*costs, *(name + RATIO for name in costs), "verify_error"]
    if wrong := [name for name in numeric if not isinstance(row[name], int | float)]:
        raise ValueError(f"expected a number as {wrong[0]}, got {row[wrong[0]]!r}")
