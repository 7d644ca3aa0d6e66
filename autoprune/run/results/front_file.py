"""The front in a run folder. Reading, picking and printing it need no model, no data and no torch."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Direction, Objective
from autoprune.core.pick import Choice, Picked
from autoprune.core.space import Candidate
from autoprune.errors import RunNotFound
from autoprune.run.records.columns import CAUTIOUS, SELECT
from autoprune.run.records.documents import read_checked, understanding
from autoprune.run.records.folder import RunFolder
from autoprune.run.results.member import Member


@dataclass(frozen=True)
class LeftOut:
    """A network of the search's front that could not be built, verified or measured.

    `candidate` is its name, as in the table of the front.
    """

    candidate: str
    levels: tuple[int, ...]
    cause: str


@dataclass(frozen=True)
class FrontFile:
    """The content of front.json.

    Attributes:
        members: the members of the front, by rising loss of the last objective.
        objectives: the columns and directions of the objectives of the front.
        dense: the costs of the dense network.
        left_out: the networks that the front lacks because they could not be built or measured.
    """

    members: tuple[Member, ...]
    objectives: tuple[tuple[str, Direction], ...]
    dense: Mapping[str, float]
    left_out: tuple[LeftOut, ...] = ()

    @property
    def followed(self) -> tuple[Objective, ...]:
        """The objectives of the front, under their names in evaluations."""
        named = ((name if name in self.dense else name.removeprefix(SELECT), way) for name, way in self.objectives)
        return tuple(Objective(name, direction) for name, direction in named)

    def to_json(self) -> dict[str, Any]:
        missing = [{"candidate": m.candidate, "levels": list(m.levels), "cause": m.cause} for m in self.left_out]
        rows = [member.to_json() for member in self.members]
        return {
            "objectives": list(map(list, self.objectives)),
            "dense": dict(self.dense),
            "rows": rows,
            "left_out": missing,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> FrontFile:
        """Makes a front from a document; those of earlier versions do not have the networks that were left out.

        Raises:
            LookupError, TypeError, ValueError: the document is not of the form of `to_json`.
        """
        for _, direction in data["objectives"]:
            if direction not in ("min", "max"):
                raise ValueError(f"expected the direction min or max of an objective, got {direction!r}")
        missing = data.get("left_out", ())
        return FrontFile(
            tuple(Member.from_json(row, data["dense"]) for row in data["rows"]),
            tuple((name, direction) for name, direction in data["objectives"]),
            data["dense"],
            tuple(LeftOut(one["candidate"], tuple(one["levels"]), one["cause"]) for one in missing),
        )

    def pick(self, text: str) -> Picked:
        """The index of the member that a text finds, with the reason.

        Bounds may be on any column and on the values of `Member.harm` (core.pick).
        """
        objectives = [Objective(name, direction) for name, direction in self.objectives]
        members = [member.with_harm() for member in self.members]
        rows = [Evaluation(Candidate(member.levels), _numbers(member)) for member in members]
        cautious = {name for name in CAUTIOUS if any(name in member.intervals for member in members)}
        return Choice(rows, objectives, self.dense, [member.candidate for member in members], cautious).pick(text)

    def picked(self, text: str) -> Member:
        """The member that a text finds."""
        return self.members[self.pick(text).index]


@dataclass(frozen=True)
class Shown:
    """Members of a front to print.

    Attributes:
        members: the members, with their numbers in the front.
        why: the reason why a pick found its member.
        left_out: the networks that the front lacks.
    """

    members: Sequence[Member]
    numbers: Sequence[int]
    why: str = ""
    left_out: Sequence[LeftOut] = ()


def read_front(path: Path, pick: str | None = None) -> list[Member]:
    """The members of a run's front, or the one that a pick such as "macs<=0.5" finds."""
    return list(show_front(path, pick).members)


def show_front(path: Path, pick: str | None = None) -> Shown:
    """The members as from `read_front`, with remarks for printing."""
    front = read_front_file(RunFolder.open(path))
    if pick is None:
        return Shown(front.members, range(1, len(front.members) + 1), left_out=front.left_out)
    found = front.pick(pick)
    return Shown([front.members[found.index]], [found.index + 1], said(front, found), front.left_out)


def said(front: FrontFile, found: Picked) -> str:
    """The result of a pick, as in "picked row 5 of 14, 8-8-4: cheapest by macs among 13 with accuracy >= 0.97"."""
    members = front.members
    return f"picked row {found.index + 1} of {len(members)}, {members[found.index].candidate}: {found.why}"


def read_front_file(folder: RunFolder) -> FrontFile:
    """Reads front.json. RunNotFound if the run has no front yet, RunDamaged if the content is invalid."""
    if not folder.front_json.is_file():
        raise RunNotFound(f"{folder.path} has no front yet. Finish it with: autoprune resume {folder.path}")
    document = read_checked(folder.front_json)
    with understanding(folder.front_json):
        return FrontFile.from_json(document)


def to_csv(members: Sequence[Member]) -> str:
    """A line for each member; lists and mappings are only in front.json."""
    flat = [member.flat() for member in members]
    names = list(dict.fromkeys(name for row in flat for name in row))  # reported names may differ
    names = names or ["candidate", "macs", "params", "macs_ratio", "params_ratio"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def _numbers(member: Member) -> dict[str, float]:
    """The numbers of a member by column, with the lower end of the interval of those that a pick is cautious about."""
    numbers = {name: float(value) for name, value in member.flat().items() if isinstance(value, int | float)}
    return numbers | {name: member.intervals[name][0] for name in CAUTIOUS if name in member.intervals}
