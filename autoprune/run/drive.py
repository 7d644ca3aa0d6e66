"""Runs: look at a job, start it, resume it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.unit import Unit
from autoprune.errors import JournalMismatch, RunFailed
from autoprune.prune.modes import torch_threads
from autoprune.prune.structure import Frozen
from autoprune.run.controller import Controller
from autoprune.run.folder import RunFolder, write_json, write_yaml
from autoprune.run.fronts import Row, finish
from autoprune.run.job import Job, OnProgress, Progress
from autoprune.run.journal import Journal, read_journal
from autoprune.run.report import write_report
from autoprune.run.serial import SerialEvaluator
from autoprune.run.session import Session, open_session


def silent(progress: Progress) -> None:
    """A report to nobody."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run left: its folder, the rows of the front, why the search ended, the session it ran in."""

    folder: Path | None
    rows: tuple[Row, ...]
    ended: str
    evaluations: tuple[Evaluation, ...]
    session: Session


@dataclass(frozen=True)
class Inspection:
    """What can be pruned in a job's model, and how far."""

    units: tuple[Unit, ...]
    levels: dict[str, tuple[int, ...]]
    space_size: int
    reach: dict[str, tuple[float, float]]
    shares: dict[str, float]
    frozen: tuple[Frozen, ...]
    uncounted: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "units": [{**unit.to_json(), "share_of_macs": self.shares[unit.name]} for unit in self.units],
            "levels": {unit: list(counts) for unit, counts in self.levels.items()},
            "space_size": self.space_size,
            "reach": {cost: list(ends) for cost, ends in self.reach.items()},
            "frozen": [{"what": row.what, "share_of_macs": row.share, "reason": row.reason} for row in self.frozen],
            "uncounted_operators": list(self.uncounted),
        }


def inspect_job(job: Job, progress: OnProgress = silent) -> Inspection:
    """Structure, space and reach of a job, without running it."""
    with torch_threads(job.threads):
        session = open_session(job, progress)
    structure = session.structure
    return Inspection(
        units=structure.units,
        levels=dict(zip(session.space.units, session.space.levels, strict=True)),
        space_size=session.space.count,
        reach=session.problem.reach(),
        shares={unit.name: structure.share(unit.name) for unit in structure.units},
        frozen=structure.frozen,
        uncounted=structure.uncounted,
    )


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
            session = open_session(job, progress)
            if records:
                check_identity(session, records[0])
            preflight(session)
            if not records:
                journal.append(_header(session))
            return _run(session, folder, journal.append, records[1:])


def _header(session: Session) -> dict[str, Any]:
    """The first record of a journal: what identifies the run, and what its last bits depend on."""
    return {"kind": "run", "identity": session.identity(), "threads": torch.get_num_threads()}


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
        write_json(folder.space, session.space.to_json())
        write_json(folder.environment, session.environment())
    controller = Controller(
        session.problem,
        job.searcher(session.problem, job.seed),
        SerialEvaluator(session.scorer.score),
        job.evaluations,
        append,
        lambda done, evaluation: session.progress(Progress("search", done, job.evaluations, evaluation.cause)),
    )
    controller.replay(records)
    session.progress(Progress("search", controller.done, job.evaluations))
    ended = controller.run()
    rows = finish(session, controller.told, folder)
    if folder is not None:
        write_report(folder.path)
    return RunResult(folder.path if folder else None, tuple(rows), ended, tuple(controller.told), session)


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
