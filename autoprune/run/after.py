"""What can be asked of a run afterwards: its front, one network of it, another budget."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from autoprune.core.evaluation import Evaluation
from autoprune.errors import RunNotFound
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.changes import check_identity
from autoprune.run.drive import recorded_threads, recorded_tuning
from autoprune.run.loop.guard import guarded
from autoprune.run.records.checks import Record
from autoprune.run.records.folder import RunFolder
from autoprune.run.records.journal import read_run, told_evaluations
from autoprune.run.results.exporter import DEFAULT, Format
from autoprune.run.results.front_file import read_front_file
from autoprune.run.results.member import Member
from autoprune.run.results.members import export_member
from autoprune.run.results.requests import check_export, check_solve
from autoprune.run.results.solving import solve_within
from autoprune.run.session.job import Job, OnProgress, silent
from autoprune.run.session.session import Session, open_session


def read_evaluations(path: Path) -> list[Evaluation]:
    """Every evaluation in a run's journal, in order."""
    return told_evaluations(read_run(RunFolder.open(path).journal))


def export(
    job: Job, path: Path, pick: str, out: Path, progress: OnProgress = silent, format: Format = DEFAULT
) -> Member:
    """Builds the member of a run's front that a pick such as "macs<=0.5" names and writes it to a new folder."""
    member, out = (
        check_export(path, pick, out, format).members[0],
        out.absolute(),
    )  # the job's own code may change the folder
    with _reopened(job, path, progress) as session:
        return export_member(session, member, out, format)


def solve(job: Job, path: Path, budget: str, out: Path | None = None, progress: OnProgress = silent) -> Member:
    """The best network within a budget such as "macs=0.4", from what a run has measured, without new probes.

    "macs=0.4,params=1e5" are two budgets that both have to hold. The members of the front, the best of the other
    networks that were evaluated, the plan for exactly this budget (exact allocation over what all evaluations say of a
    unit, search.damage_model) and the uniform network of equal cost are compared as built, on the selection set. The
    best is measured on the report set and, with `out`, exported; its `solved` says which it is, and why.

    Raises ConfigError for a budget on something that is no cost, InfeasibleBudget for one out of reach.
    """
    check_solve(path, budget, out)
    path, out = path.absolute(), None if out is None else out.absolute()  # the job's own code may change the folder
    folder = RunFolder.open(path)
    with _reopened(job, path, progress) as session:
        members = read_front_file(folder).members if folder.front_json.is_file() else ()
        return solve_within(session, members, read_evaluations(path), budget, out)


@contextlib.contextmanager
def _reopened(job: Job, path: Path, progress: OnProgress) -> Iterator[Session]:
    """The session of a run, with the threads and the form it had: its numbers come out the same to the last bit."""
    with as_it_ran(job, path) as records:
        yield open_again(job, path, records, progress)


@contextlib.contextmanager
def as_it_ran(job: Job, path: Path | None) -> Iterator[Sequence[Record]]:
    """Inside, torch has the threads that a run had; yields the records of its journal, none without a folder."""
    records = [] if path is None else read_run(RunFolder.open(path.absolute()).journal)
    with guarded(), torch_threads(recorded_threads(records, job)):
        yield records


def open_again(job: Job, path: Path, records: Sequence[Record], progress: OnProgress) -> Session:
    """The session of a run, with the form it had.

    Raises:
        RunNotFound: the run was stopped before it measured anything.
        JournalMismatch: the job is not the one the run was started with.
    """
    if not records:
        raise RunNotFound(f"{path} was stopped before it measured anything. Go on with: autoprune resume {path}")
    session = open_session(job, progress, recorded_tuning(records), RunFolder(path.absolute()).bank)
    check_identity(session, records[0], unless=("searcher",))  # it has proposed what it did
    return session
