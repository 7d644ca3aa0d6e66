"""Starts and resumes runs."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoprune.core.contracts import Evaluator, Remarking
from autoprune.core.evaluation import Evaluation, partial_scores
from autoprune.core.process import ending_forks
from autoprune.errors import RunFailed
from autoprune.measure.form import Tuning
from autoprune.plan.additivity import Additivity, additivity, additivity_summary
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.changes import changes, check_identity
from autoprune.run.executors.computing import versions
from autoprune.run.executors.evaluator import open_evaluator
from autoprune.run.executors.pool import Pool
from autoprune.run.executors.reference import Reference
from autoprune.run.fingerprint.secrets import redacted, withheld, without
from autoprune.run.forecast.opening import forecast_of
from autoprune.run.identity import coupling_of, environment_of, identity_of
from autoprune.run.loop.controller import Append, Controller
from autoprune.run.loop.failures import most_failed
from autoprune.run.loop.guard import guarded, watched
from autoprune.run.loop.hiding import check_given, hiding, secrets_of
from autoprune.run.loop.progress import SearchProgress
from autoprune.run.loop.stopping import Stopping, seconds_used
from autoprune.run.loop.tracking import Trackers
from autoprune.run.records.checks import Record
from autoprune.run.records.documents import write_checked
from autoprune.run.records.events import Events
from autoprune.run.records.folder import RunFolder, claimed, short, write_text, write_yaml
from autoprune.run.records.journal import VERSION, Journal, check_records, read_run
from autoprune.run.report import write_report
from autoprune.run.results.front_file import LeftOut
from autoprune.run.results.member import Member
from autoprune.run.results.members import finish
from autoprune.run.session.dense import check_reported, measure_dense
from autoprune.run.session.device import check_values
from autoprune.run.session.emptied import EmptiedWeights
from autoprune.run.session.job import Job, OnProgress, silent
from autoprune.run.session.session import Session, open_session
from autoprune.run.settings import changed_settings, settings_of, with_front_size

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunResult:
    """The result of a run.

    Attributes:
        folder: the run folder, if it has one.
        members: the members of the front.
        evaluations: all evaluations of the search.
        ended: the reason why the search ended.
        session: the session of the run.
        additivity: a line on how far the damages of single units add up.
        left_out: the networks that the front lacks because they could not be built or measured.
        failures: the causes, if most evaluations failed.
        remark: the searcher's remark, such as how many plans lost against uniform networks of equal cost, and how many
            networks were scored in part only.
    """

    folder: Path | None
    members: tuple[Member, ...]
    ended: str
    evaluations: tuple[Evaluation, ...]
    session: Session
    additivity: str
    left_out: tuple[LeftOut, ...] = ()
    failures: str = ""
    remark: str = ""

    def __repr__(self) -> str:
        found = f"{len(self.members)} members, {len(self.evaluations)} evaluations"
        return f"RunResult({self.folder or 'no folder'}: {found}, ended: {self.ended})"


@ending_forks()
def search(job: Job, path: Path | None, progress: OnProgress = silent, answers: Path | None = None) -> RunResult:
    """Runs a job from the start.

    Args:
        job: the settings.
        path: the new run folder; None runs in memory.
        progress: receives the progress.
        answers: the folder of a run whose evaluations are reused for the same networks, if they are still valid.
    """
    check_given(job)
    check_values(job.device)
    clean = without(secrets_of(job))
    with guarded(), contextlib.ExitStack() as stack:
        folder: RunFolder | None = None
        if path is not None:
            RunFolder.check_free(path)
            folder = stack.enter_context(claimed(path))
        earlier = [] if answers is None else read_run(RunFolder.open(answers).journal)
        if answers is not None and not earlier:
            _log.warning("no evaluation of the earlier run is used: %s has none", RunFolder(answers).journal)
        stack.enter_context(torch_threads(recorded_threads(earlier, job)))
        forecast, session = forecast_of(job, progress, recorded_tuning(earlier))
        forecast.check()
        measure_dense(session)
        events = stack.enter_context(Events(clean))
        with open_evaluator(job.executor, session.scorer, events.add) as evaluator:
            preflight(session, evaluator, events)
            trackers = Trackers(job, events)
            append: Append = _forget
            records = _still_valid(session, earlier)
            if folder is not None:  # not earlier, so that a job that cannot start leaves nothing behind
                write_yaml(folder.job, withheld(job.document))
                write_checked(folder.forecast, forecast.to_json())
                append = hiding(watched(folder, stack.enter_context(Journal(folder.journal)).append), clean)
            for record in [_header(session), *records]:
                append(record)
            controller, ended = _explore(session, evaluator, events, trackers, folder, append, records)
            return _finish(session, controller, ended, folder, events, trackers, evaluator)


@ending_forks()
def resume(job: Job, path: Path, progress: OnProgress = silent, *, repair: bool = False) -> RunResult:
    """Continues a run from its journal; the result is the same as without an interruption.

    With `repair`, damaged lines of the journal are moved away first (journal.repair_journal).
    """
    check_given(job)
    folder = RunFolder.open(path.absolute())
    clean = without(secrets_of(job))
    with guarded(), Journal(folder.journal, repair=repair) as journal, Events(clean) as events:
        records, append = journal.records, hiding(watched(folder, journal.append), clean)
        check_records(folder.journal, records)
        if not records:
            _log.warning("%s has no measurements: the run starts again", folder.journal)
        with torch_threads(recorded_threads(records, job)):
            session = _opened(job, progress, records, folder)
            if records:
                check_identity(session, records[0])
                for line in changed_settings(session.job, records[0]):
                    _log.warning(line)
            with open_evaluator(job.executor, session.scorer, events.add) as evaluator:
                preflight(session, evaluator, events)
                trackers = Trackers(job, events)
                if not records:
                    append(_header(session))
                controller, ended = _explore(session, evaluator, events, trackers, folder, append, records[1:])
                return _finish(session, controller, ended, folder, events, trackers, evaluator)


def _opened(job: Job, progress: OnProgress, records: Sequence[Record], folder: RunFolder) -> Session:
    """The session of a run that is continued; one that has no record yet begins with a forecast, as a new run does."""
    if not records:
        return forecast_of(job, progress)[1]
    return open_session(with_front_size(job, records[0]), progress, recorded_tuning(records), folder.bank)


def _still_valid(session: Session, records: Sequence[Record]) -> list[Record]:
    """The successful evaluations of another run as answers, or none, with a warning, if measurements would differ.

    Failed evaluations are repeated, as they may have lacked time or memory.
    """
    if not records:
        return []
    changed = changes(session, records[0])
    if any(change.seen_by_scores for change in changed):
        names = dict.fromkeys(change.name for change in changed if change.seen_by_scores)
        why = "; ".join(change.sentence for change in changed if change.seen_by_scores)
        _log.warning("no evaluation of the earlier run is used: %s changed since (%s)", ", ".join(names), why)
        return []
    costs = {*records[0].get("dense", {}), *session.dense_costs}
    known = [without_costs(record["evaluation"], costs) for record in records if "evaluation" in record]
    needed = {o.name for o in session.problem.objectives} - {*session.dense_costs}
    valid = [e for e in known if e["status"] == "ok" and needed <= {*e["values"]}]
    return [{"kind": "answer", "evaluation": evaluation} for evaluation in valid]


def without_costs(evaluation: Mapping[str, Any], costs: Collection[str]) -> dict[str, Any]:
    """An evaluation of a journal without its costs, which the controller computes."""
    measured = {name: value for name, value in evaluation["values"].items() if name not in costs}
    return {**evaluation, "values": measured}


def _header(session: Session) -> Record:
    """The first record of a journal: the run's identity, settings, threads and form, and the meaning of its values."""
    return {
        "kind": "run",
        "version": VERSION,
        "identity": identity_of(session),
        "settings": settings_of(session.job),
        "followed": [[o.name, o.direction] for o in session.problem.objectives],
        "dense": session.dense_costs,
        "threads": torch.get_num_threads(),
        "tuning": session.tuning.to_json(),
    }


def recorded_tuning(records: Sequence[Record]) -> Tuning | None:
    """The recorded form of a run; None if its journal is empty."""
    return Tuning.from_json(records[0]["tuning"]) if records else None


def recorded_threads(records: Sequence[Record], job: Job) -> int | None:
    """The recorded number of threads of a run, on which the last bits of its sums depend."""
    return records[0].get("threads") if records else job.threads


def _forget(record: object) -> None:
    """Drops a record, as a run without a folder has no journal."""


def _explore(
    session: Session,
    evaluator: Evaluator,
    events: Events,
    trackers: Trackers,
    folder: RunFolder | None,
    append: Append,
    records: Sequence[Record],
) -> tuple[Controller, str]:
    """Runs the search from the end of the records, and records the reason why it ended, also if it was interrupted."""
    job = session.job
    if folder is not None:  # also on resume, as the run may have been killed before they were written
        events.keep(folder.events)
        session.keep_bank(folder.bank)
        write_checked(folder.space, session.space.to_json())
        write_checked(folder.structure, coupling_of(session))
        write_checked(folder.environment, redacted(environment_of(session)))
    watch = SearchProgress(session, session.searcher, evaluator, events, trackers)
    stopping = Stopping(job.stop, session.problem.objectives, session.dense_costs, seconds_used(records))
    controller = Controller(
        session.problem,
        session.searcher,
        evaluator,
        job.evaluations,
        append,
        watch.step,
        job.deterministic,
        stopping.reason,
        EmptiedWeights(session).look,
    )
    controller.replay(records)
    watch.begin(controller.done, controller.told, folder.path if folder else None)
    try:
        ended = controller.run()
    except BaseException as error:
        append(_end(f"{type(error).__name__}: {error}", stopping))
        raise
    append(_end(ended, stopping))
    return controller, ended


def _end(why: str, stopping: Stopping) -> Record:
    return {"kind": "end", "why": why, "seconds": round(stopping.seconds, 3)}


def _finish(
    session: Session,
    controller: Controller,
    ended: str,
    folder: RunFolder | None,
    events: Events,
    trackers: Trackers,
    evaluator: Evaluator,
) -> RunResult:
    """Builds the front and writes the files of a finished run."""
    if failures := most_failed(controller.told):
        _log.warning(failures)
    team = evaluator if isinstance(evaluator, Pool) else None
    members, left_out = finish(session, controller.told, folder, team, versions())
    events.warn(session.scorer.remark)
    sums = additivity(session.problem, controller.told)
    if folder is not None:
        write_text(folder.additivity, additivity_csv(sums))
        report_or_warn(folder)
    trackers.finished([member.flat() for member in members])
    told, path = tuple(controller.told), folder.path if folder else None
    remark = session.searcher.remark if isinstance(session.searcher, Remarking) else ""
    if partial := partial_scores(told):
        events.add("remark", {"done": controller.done, "remark": partial})
        remark = "; ".join(filter(None, [remark, partial]))
    return RunResult(path, members, ended, told, session, additivity_summary(sums), left_out, failures, remark)


def report_or_warn(folder: RunFolder) -> None:
    """Writes the report. A failure is only logged, as the report shows data that the folder has already."""
    try:
        write_report(short(folder.path))  # the report shows commands with this path
    except Exception as error:  # readers of files may raise anything; the report can be written again
        why = str(error).rstrip(".")
        _log.warning("%s is not written: %s. Try again with: autoprune report %s", folder.report, why, folder.path)


def additivity_csv(rows: Sequence[Additivity]) -> str:
    """The summary, then a line for each network that changes several units: levels, predicted and measured damage."""
    lines = [f"# {additivity_summary(rows)}", "levels,predicted,measured,gap"]
    lines += [f"{'-'.join(map(str, r.candidate.levels))},{r.predicted!r},{r.measured!r},{r.gap!r}" for r in rows]
    return "\n".join(lines) + "\n"


def preflight(session: Session, evaluator: Evaluator, events: Events) -> None:
    """Evaluates the dense network as every candidate is, so that plug-ins are tested before the search."""
    evaluator.submit(session.space.dense)
    dense = evaluator.collect()
    events.warn(dense.remark)
    if not dense.ok:
        raise RunFailed(f"the dense network cannot be scored: {dense.cause}")
    check_reported(session, dense.values)
    if isinstance(evaluator, Pool):
        evaluator.prove_by(dense, _reference(session, events).check)


def _reference(session: Session, events: Events) -> Reference:
    """The values of the dense network in this process, in which members of the front are measured."""

    def score() -> Evaluation:
        return session.scorer.score(session.space.dense)

    here = score()
    if not here.ok:
        raise RunFailed(f"the dense network can be scored by a worker but not by this process: {here.cause}")
    return Reference(score, here.values, session.device.type == "cpu", events.warn)
