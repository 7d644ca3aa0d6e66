"""Operations on a finished run: reading its evaluations, exporting a member, solving for another budget."""

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
    """All evaluations in a run's journal, in order."""
    return told_evaluations(read_run(RunFolder.open(path).journal))


def export(
    job: Job, path: Path, pick: str, out: Path, progress: OnProgress = silent, format: Format = DEFAULT
) -> Member:
    """Builds the member of a run's front that a pick such as "macs<=0.5" finds, and writes it to a new folder."""
    member, out = (
        check_export(path, pick, out, format).members[0],
        out.absolute(),
    )  # the job's own code may change the folder
    with _reopened(job, path, progress) as session:
        return export_member(session, member, out, format)


def solve(job: Job, path: Path, budget: str, out: Path | None = None, progress: OnProgress = silent) -> Member:
    """Finds the best network within a budget from the measurements of a run, without new probes.

    It compares the members of the front, the best other networks that were evaluated, the plan for exactly this budget
    (exact allocation with damages fitted to all evaluations, plan.damage_model) and the uniform network of equal cost.
    They are built and compared on the selection set; the best is measured on the report set.

    Args:
        job: the settings of the run.
        path: the run folder.
        budget: a bound such as "macs=0.4", or several, such as "macs=0.4,params=1e5", that must all hold.
        out: if given, the best network is exported there.
        progress: receives the progress.

    Returns:
        The best network; its `solved` says what it is and why.

    Raises:
        ConfigError: the budget is not on a cost.
        InfeasibleBudget: no network is within the budget.
    """
    check_solve(path, budget, out)
    path, out = path.absolute(), None if out is None else out.absolute()  # the job's own code may change the folder
    folder = RunFolder.open(path)
    with _reopened(job, path, progress) as session:
        members = read_front_file(folder).members if folder.front_json.is_file() else ()
        return solve_within(session, members, read_evaluations(path), budget, out)


@contextlib.contextmanager
def _reopened(job: Job, path: Path, progress: OnProgress) -> Iterator[Session]:
    """The session of a run, with its threads and form, so that its numbers are reproduced bit for bit."""
    with as_it_ran(job, path) as records:
        yield open_again(job, path, records, progress)


@contextlib.contextmanager
def as_it_ran(job: Job, path: Path | None) -> Iterator[Sequence[Record]]:
    """Sets torch's threads to those of a run, and yields the records of its journal, or none without a folder."""
    records = [] if path is None else read_run(RunFolder.open(path.absolute()).journal)
    with guarded(), torch_threads(recorded_threads(records, job)):
        yield records


def open_again(job: Job, path: Path, records: Sequence[Record], progress: OnProgress) -> Session:
    """Opens the session of a run, with its form.

    Raises:
        RunNotFound: the run was stopped before it measured anything.
        JournalMismatch: the job differs from the one that the run was started with.
    """
    if not records:
        raise RunNotFound(f"{path} was stopped before it measured anything. Go on with: autoprune resume {path}")
    session = open_session(job, progress, recorded_tuning(records), RunFolder(path.absolute()).bank)
    check_identity(session, records[0], unless=("searcher",))  # it is not needed any more
    return session
