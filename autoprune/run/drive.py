"""Runs: look at a job, start it, resume it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoprune.core.contracts import Evaluator
from autoprune.core.evaluation import Evaluation
from autoprune.core.unit import Unit
from autoprune.errors import JournalMismatch, RunFailed
from autoprune.prune.modes import torch_threads
from autoprune.prune.structure import Frozen
from autoprune.run.controller import Append, Controller
from autoprune.run.dense import check_reported, measure_dense
from autoprune.run.events import Events
from autoprune.run.executors import open_evaluator
from autoprune.run.folder import RunFolder, claimed, short, write_json, write_text, write_yaml
from autoprune.run.front_file import Row
from autoprune.run.fronts import finish
from autoprune.run.guard import guarded, watched
from autoprune.run.identity import coupling_of, environment_of, identity_of
from autoprune.run.job import Job, OnProgress, Progress
from autoprune.run.journal import VERSION, Journal, Record, read_journal
from autoprune.run.report import write_report
from autoprune.run.session import Session, open_session
from autoprune.run.stopping import Stopping
from autoprune.run.tuning import Tuning
from autoprune.run.watch import Watch
from autoprune.search.additivity import Additivity, additivity, summary

Shares = dict[str, float]

COUNTED = ("macs", "params")
UNSEEN_BY_SCORES = ("objectives", "seed", "evaluations", "compensation")  # of a run's identity

_log = logging.getLogger(__name__)


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
    with guarded(), torch_threads(job.threads):
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


def search(job: Job, path: Path | None, progress: OnProgress = silent, answers: Path | None = None) -> RunResult:
    """Runs a job from the start into a new folder, or in memory when there is none.

    `answers` is a run whose evaluations are used where this search asks for the same networks, as far as they would
    come out the same here.
    """
    with guarded(), contextlib.ExitStack() as stack:
        folder: RunFolder | None = None
        if path is not None:
            RunFolder.check_free(path)
            folder = stack.enter_context(claimed(path))
        earlier = [] if answers is None else read_journal(RunFolder.open(answers).journal)
        stack.enter_context(torch_threads(recorded_threads(earlier, job)))
        session = open_session(job, progress, recorded_tuning(earlier))
        measure_dense(session)
        events = stack.enter_context(Events())
        with open_evaluator(job.executor, session.scorer, events.add) as evaluator:
            preflight(session, evaluator)
            append: Append = _forget
            records = _still_valid(session, earlier)
            if folder is not None:  # only now: a job that cannot start leaves nothing behind
                write_yaml(folder.job, dict(job.document))
                append = watched(folder, stack.enter_context(Journal(folder.journal)).append)
            for record in [_header(session), *records]:
                append(record)
            controller, ended = _explore(session, evaluator, events, folder, append, records)
        return _finish(session, controller, ended, folder)


def resume(job: Job, path: Path, progress: OnProgress = silent, *, repair: bool = False) -> RunResult:
    """Continues a run from its journal; the result is that of a run that was never interrupted.

    With `repair`, damaged lines of the journal are set aside first (journal.repair_journal).
    """
    folder = RunFolder.open(path.absolute())
    with guarded(), Journal(folder.journal, repair=repair) as journal, Events() as events:
        records, append = journal.records, watched(folder, journal.append)
        with torch_threads(recorded_threads(records, job)):
            session = open_session(job, progress, recorded_tuning(records), folder.bank)
            if records:
                check_identity(session, records[0])
            with open_evaluator(job.executor, session.scorer, events.add) as evaluator:
                preflight(session, evaluator)
                if not records:
                    append(_header(session))
                controller, ended = _explore(session, evaluator, events, folder, append, records[1:])
            return _finish(session, controller, ended, folder)


def _still_valid(session: Session, records: Sequence[Record]) -> list[Record]:
    """The successful evaluations of another run as answers, if what values follow from is the same; else none, which is
    logged. What failed may have failed for want of time or memory, and is tried again.
    """
    if not records:
        return []
    then, now = records[0]["identity"], identity_of(session)
    changed = [name for name in _changed(then, now) if name not in UNSEEN_BY_SCORES]
    if changed:
        _log.warning("no evaluation of the earlier run is used: %s changed since", ", ".join(changed))
        return []
    known = [record["evaluation"] for record in records if "evaluation" in record]
    needed = {o.name for o in session.problem.objectives} - {*session.dense_costs}
    valid = [e for e in known if e["status"] == "ok" and needed <= {*e["values"]}]
    return [{"kind": "answer", "evaluation": evaluation} for evaluation in valid]


def _header(session: Session) -> Record:
    """The first record of a journal: what identifies the run, what its last bits depend on, what its values mean."""
    return {
        "kind": "run",
        "version": VERSION,
        "identity": identity_of(session),
        "followed": [[o.name, o.direction] for o in session.problem.objectives],
        "dense": session.dense_costs,
        "threads": torch.get_num_threads(),
        "tuning": session.tuning.to_json(),
    }


def recorded_tuning(records: Sequence[Record]) -> Tuning | None:
    """What a journal says about the form its scores were taken in; None where nothing was written yet."""
    return Tuning.from_json(records[0]["tuning"]) if records else None


def recorded_threads(records: Sequence[Record], job: Job) -> int | None:
    """How many threads a journal says its run had: a sum's last bits depend on how many it was split over."""
    return records[0].get("threads") if records else job.threads


def check_identity(session: Session, header: Record) -> None:
    """Raises JournalMismatch, naming what differs, when the job is not the one the journal was written for."""
    then, now = header.get("identity", {}), identity_of(session)
    changed = _changed(then, now)
    if changed:
        differences = "; ".join(f"{name} was {_short(then.get(name))}, is {_short(now.get(name))}" for name in changed)
        raise JournalMismatch(
            f"expected the job the run was started with, but {differences}. Put it back, or start a new run that keeps "
            "what still holds of this one: autoprune resume RUN --fork DIR"
        )


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a run's identity differs; some facts are there only where a job has what they are about."""
    return [name for name in dict.fromkeys((*now, *then)) if now.get(name) != then.get(name)]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _forget(record: object) -> None:
    """The journal of a run without a folder."""


def _explore(
    session: Session,
    evaluator: Evaluator,
    events: Events,
    folder: RunFolder | None,
    append: Append,
    records: Sequence[Record],
) -> tuple[Controller, str]:
    """Runs the search, from where the records end; the journal gets to know why it ended, also one cut short."""
    job = session.job
    if folder is not None:  # on resume again: the run may have been killed before they were written
        events.keep(folder.events)
        session.keep_bank(folder.bank)
        write_json(folder.space, session.space.to_json())
        write_json(folder.structure, coupling_of(session))
        write_json(folder.environment, environment_of(session))
    watch = Watch(session, session.searcher, evaluator, events)
    stopping = Stopping(job.stop, session.problem.objectives, session.dense_costs)
    controller = Controller(
        session.problem, session.searcher, evaluator, job.evaluations, append, watch.step, job.ordered, stopping.reason
    )
    controller.replay(records)
    watch.begin(controller.done, controller.told)
    try:
        ended = controller.run()
    except BaseException as error:
        append({"kind": "end", "why": f"{type(error).__name__}: {error}"})
        raise
    append({"kind": "end", "why": ended})
    return controller, ended


def _finish(session: Session, controller: Controller, ended: str, folder: RunFolder | None) -> RunResult:
    """Builds the front and writes what a finished run leaves."""
    rows = finish(session, controller.told, folder)
    sums = additivity(session.problem, controller.told)
    if folder is not None:
        write_text(folder.additivity, additivity_csv(sums))
        _report(folder)
    return RunResult(
        folder.path if folder else None, tuple(rows), ended, tuple(controller.told), session, summary(sums)
    )


def _report(folder: RunFolder) -> None:
    """The report is a view of what is in the folder already: where it fails, the run is whole without it."""
    try:
        write_report(short(folder.path))  # it shows commands with this path
    except Exception as error:  # anything a reader of files may raise; it can be written again
        _log.warning("%s is not written: %s. Try again with: autoprune report %s", folder.report, error, folder.path)


def additivity_csv(rows: Sequence[Additivity]) -> str:
    """The summary, then one line a network that changes several units: levels, damage predicted and measured, gap."""
    lines = [f"# {summary(rows)}", "levels,predicted,measured,gap"]
    lines += [f"{'-'.join(map(str, r.candidate.levels))},{r.predicted!r},{r.measured!r},{r.gap!r}" for r in rows]
    return "\n".join(lines) + "\n"


def preflight(session: Session, evaluator: Evaluator) -> None:
    """The dense network through the path every candidate takes: plug-ins are tried before anything is searched."""
    evaluator.submit(session.space.dense)
    dense = evaluator.collect()
    if not dense.ok:
        raise RunFailed(f"the dense network cannot be scored: {dense.cause}")
    check_reported(session, dense.values)
