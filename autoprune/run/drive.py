"""Runs: look at a job, start it, resume it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.unit import Unit
from autoprune.errors import JournalMismatch, RunFailed
from autoprune.prune.modes import torch_threads
from autoprune.prune.structure import Frozen
from autoprune.run.controller import Controller
from autoprune.run.folder import RunFolder, write_json, write_text, write_yaml
from autoprune.run.fronts import Row, finish
from autoprune.run.job import Job, OnProgress, Progress
from autoprune.run.journal import Journal, read_journal
from autoprune.run.report import write_report
from autoprune.run.serial import SerialEvaluator
from autoprune.run.session import Session, open_session
from autoprune.run.tuning import Tuning
from autoprune.search.additivity import Additivity, additivity, summary

Shares = dict[str, float]

COUNTED = ("macs", "params")


def silent(progress: Progress) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run left: its folder, the rows of the front, why the search ended, the session it ran in.

    `additivity` says in a line how far the damages of single units added up.
    """

    folder: Path | None
    rows: tuple[Row, ...]
    ended: str
    evaluations: tuple[Evaluation, ...]
    session: Session
    additivity: str


@dataclass(frozen=True)
class FrozenGroup:
    """What is frozen for one reason: the share of the dense MACs of all of it, and its parts by name."""

    reason: str
    share: float
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What can be pruned in a job's model, and how far.

    `levels` are the kept counts of the units that are searched. `shares` and `kind_shares` say which share of the
    dense "macs" and "params" would go if nothing of a unit, or of all units of a kind, stayed. `reach` is the least
    and the most of every cost. `frozen` has the largest share of the MACs first. `statistics_bytes` is the memory that
    the statistics of the searched units will take.
    """

    units: tuple[Unit, ...]
    levels: dict[str, tuple[int, ...]]
    space_size: int
    reach: dict[str, tuple[float, float]]
    shares: dict[str, Shares]
    kind_shares: dict[str, Shares]
    frozen: tuple[Frozen, ...]
    uncounted: tuple[str, ...]
    statistics_bytes: int

    @property
    def frozen_share(self) -> float:
        """Share of the dense MACs in operators that no unit touches."""
        return sum(part.share for part in self.frozen)

    def of_kind(self, kind: str) -> list[Unit]:
        """The units of a kind, the largest share of the MACs first."""
        units = [unit for unit in self.units if unit.kind == kind]
        return sorted(units, key=lambda unit: -self.shares[unit.name]["macs"])

    def frozen_by_reason(self) -> list[FrozenGroup]:
        """The frozen parts that share a reason together, the largest share of the MACs first."""
        groups: dict[str, list[Frozen]] = {}
        for part in self.frozen:
            groups.setdefault(part.reason, []).append(part)
        found = [
            FrozenGroup(reason, sum(part.share for part in parts), tuple(part.what for part in parts))
            for reason, parts in groups.items()
        ]
        return sorted(found, key=lambda group: -group.share)

    def to_json(self) -> dict[str, Any]:
        return {
            "units": [self._unit_json(unit) for unit in self.units],
            "kinds": {kind: _shares_json(shares) for kind, shares in self.kind_shares.items()},
            "levels": {unit: list(counts) for unit, counts in self.levels.items()},
            "space_size": self.space_size,
            "reach": {cost: list(ends) for cost, ends in self.reach.items()},
            "frozen_share_of_macs": self.frozen_share,
            "frozen": [{"what": row.what, "share_of_macs": row.share, "reason": row.reason} for row in self.frozen],
            "uncounted_operators": list(self.uncounted),
            "statistics_bytes": self.statistics_bytes,
        }

    def _unit_json(self, unit: Unit) -> dict[str, Any]:
        return {**unit.to_json(), "modules": list(unit.modules), **_shares_json(self.shares[unit.name])}


def _shares_json(shares: Shares) -> Shares:
    return {f"share_of_{cost}": share for cost, share in shares.items()}


def inspect_job(job: Job, progress: OnProgress = silent) -> Inspection:
    """Structure, space and reach of a job, without running it."""
    with torch_threads(job.threads):
        session = open_session(job, progress)
    structure = session.structure
    return Inspection(
        units=session.units,
        levels=dict(zip(session.space.units, session.space.levels, strict=True)),
        space_size=session.space.count,
        reach=session.problem.reach(),
        shares={unit.name: _shares(session, [unit]) for unit in session.units},
        kind_shares={
            kind: _shares(session, [unit for unit in session.units if unit.kind == kind])
            for kind in dict.fromkeys(unit.kind for unit in session.units)
        },
        frozen=tuple(sorted(structure.frozen, key=lambda part: -part.share)),
        uncounted=structure.uncounted,
        statistics_bytes=session.statistics_bytes,
    )


def _shares(session: Session, units: Sequence[Unit]) -> Shares:
    """Share of what the dense network computes and stores that would go with all of the units of one kind."""
    if units[0].is_sparse:
        counts = np.zeros((1, len(units)), dtype=np.int64)
        rest = session.problem.costs.evaluate([unit.name for unit in units], counts)
        left = {"macs": rest["effective_macs"][0].item(), "params": rest["nonzeros"][0].item()}
        return {cost: 1 - left[cost] / session.dense_costs[cost] for cost in COUNTED}
    return {cost: session.structure.joint_share([unit.name for unit in units], cost) for cost in COUNTED}


def search(job: Job, path: Path | None, progress: OnProgress = silent) -> RunResult:
    """Runs a job from the start into a new folder, or in memory when there is none."""
    with torch_threads(job.threads):
        if path is not None:
            RunFolder.check_free(path)
        session = open_session(job, progress)
        preflight(session)
        if path is None:
            return _run(session, None, _forget, [])
        folder = RunFolder.create(path)  # only now: a job that cannot start leaves nothing behind
        write_yaml(folder.job, dict(job.document))
        with Journal(folder.journal) as journal:
            journal.append(_header(session))
            return _run(session, folder, journal.append, [])


def resume(job: Job, path: Path, progress: OnProgress = silent) -> RunResult:
    """Continues a run from its journal; the result is that of a run that was never interrupted."""
    folder = RunFolder.open(path)
    with Journal(folder.journal) as journal:
        records = read_journal(folder.journal)
        # a sum's last bits depend on how many threads it was split over
        threads = records[0].get("threads") if records else job.threads
        with torch_threads(threads):
            session = open_session(job, progress, recorded_tuning(records), folder.bank)
            if records:
                check_identity(session, records[0])
            preflight(session)
            if not records:
                journal.append(_header(session))
            return _run(session, folder, journal.append, records[1:])


def _header(session: Session) -> dict[str, Any]:
    """The first record of a journal: what identifies the run, and what its last bits depend on."""
    return {
        "kind": "run",
        "identity": session.identity(),
        "threads": torch.get_num_threads(),
        "tuning": session.tuning.to_json(),
    }


def recorded_tuning(records: Sequence[dict[str, Any]]) -> Tuning | None:
    """What a journal says about the form its scores were taken in; None where nothing was written yet."""
    return Tuning.from_json(records[0]["tuning"]) if records else None


def check_identity(session: Session, header: dict[str, Any]) -> None:
    """Raises JournalMismatch, naming what differs, when the job is not the one the journal was written for."""
    then, now = header.get("identity", {}), session.identity()
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        differences = "; ".join(f"{name} was {_short(then.get(name))}, is {_short(now[name])}" for name in changed)
        raise JournalMismatch(
            f"expected the job the run was started with, but {differences}. Put it back, or start a new run."
        )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _forget(record: object, *, sync: bool = True) -> None:
    """The journal of a run without a folder."""


def _run(
    session: Session, folder: RunFolder | None, append: Callable[..., None], records: Sequence[dict[str, Any]]
) -> RunResult:
    job = session.job
    if folder is not None:  # on resume again: the run may have been killed before they were written
        session.keep_bank(folder.bank)
        write_json(folder.space, session.space.to_json())
        write_json(folder.structure, session.coupling())
        write_json(folder.environment, session.environment())
    controller = Controller(
        session.problem,
        job.searcher(session.profiled, job.seed),
        SerialEvaluator(session.scorer.score),
        job.evaluations,
        append,
        lambda done, evaluation: session.progress(Progress("search", done, job.evaluations, evaluation.cause)),
    )
    controller.replay(records)
    session.progress(Progress("search", controller.done, job.evaluations))
    ended = controller.run()
    rows = finish(session, controller.told, folder)
    sums = additivity(session.problem, controller.told)
    if folder is not None:
        write_text(folder.additivity, additivity_csv(sums))
        write_report(folder.path)
    return RunResult(
        folder.path if folder else None, tuple(rows), ended, tuple(controller.told), session, summary(sums)
    )


def additivity_csv(rows: Sequence[Additivity]) -> str:
    """The summary, then one line a network that changes several units: levels, damage predicted and measured, gap."""
    lines = [f"# {summary(rows)}", "levels,predicted,measured,gap"]
    lines += [f"{'-'.join(map(str, r.candidate.levels))},{r.predicted!r},{r.measured!r},{r.gap!r}" for r in rows]
    return "\n".join(lines) + "\n"


def preflight(session: Session) -> Evaluation:
    """The dense network through the path every candidate takes: plug-ins are tried before anything is searched."""
    dense = session.scorer.score(session.space.dense)
    needed = dict.fromkeys(o.name for o in (*session.job.objectives, *session.problem.objectives))
    missing = [name for name in needed if name not in dense.values and name not in session.dense_costs]
    if not dense.ok:
        raise RunFailed(f"the dense network cannot be scored: {dense.cause}")
    if missing:
        raise RunFailed(
            f"expected the fitness to report {missing}, it reports {sorted(dense.values)}. Name the objectives and the "
            "guide after what it reports."
        )
    return dense
