"""What can be asked of a run afterwards: its front, one network of it, another budget."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, RunFailed, RunNotFound
from autoprune.prune.modes import torch_threads
from autoprune.run.drive import check_identity, recorded_threads, recorded_tuning, silent
from autoprune.run.folder import RunFolder
from autoprune.run.fronts import (
    LeftOut,
    Row,
    build_member,
    export_member,
    left_out_of,
    pick_row,
    read_document,
    write_member,
)
from autoprune.run.job import Job, OnProgress
from autoprune.run.journal import read_run, told
from autoprune.run.session import Session, open_session
from autoprune.search.allocation import plan
from autoprune.search.damage_model import DamageModel


def read_front(path: Path, pick: str | None = None) -> list[Row]:
    """The rows of a run's front, or the one that a pick such as "macs<=0.5" names."""
    document = read_document(RunFolder.open(path))
    rows: list[Row] = document["rows"]
    return rows if pick is None else [pick_row(document, pick)]


def read_left_out(path: Path) -> tuple[LeftOut, ...]:
    """The networks that a run's front lacks because they could not be built or measured, with their causes."""
    return left_out_of(read_document(RunFolder.open(path)))


def read_evaluations(path: Path) -> list[Evaluation]:
    """Every evaluation in a run's journal, in order."""
    return told(read_run(RunFolder.open(path).journal))


def export(job: Job, path: Path, pick: str, out: Path, progress: OnProgress = silent) -> Row:
    """Builds the member of a run's front that a pick such as "macs<=0.5" names and writes it to a new folder."""
    row = pick_row(read_document(RunFolder.open(path)), pick)
    with _reopened(job, path, progress) as session:
        return export_member(session, row, out)


def solve(job: Job, path: Path, budget: str, out: Path | None = None, progress: OnProgress = silent) -> Row:
    """The best network within a budget such as "macs=0.4", from what a run has measured, without new probes.

    Of the plan for exactly this budget (exact allocation over what all evaluations say of a unit, search.damage_model)
    and the best network measured within it, the better one on the selection set; it is measured on the report set and,
    with `out`, exported.

    Raises ConfigError for a budget on something that is no cost, InfeasibleBudget for one out of reach.
    """
    with _reopened(job, path, progress) as session:
        best = _best_within(session, read_evaluations(path), _cost_bound(session, budget))
        built = build_member(session, best)
        return built.row if out is None else write_member(session, built, out)


def _best_within(session: Session, evaluations: list[Evaluation], bound: Bound) -> Evaluation:
    """The better of the plan for the bound and what was measured within it, on the selection set."""
    model = DamageModel(session.problem)
    model.tell(evaluations)
    planned = Candidate(plan(session.problem, model.table(), bound.name, bound.value))
    contenders = [e for e in evaluations if e.ok and bound.admits(e.values[bound.name])]
    if planned not in {e.candidate for e in contenders}:
        contenders.append(_scored(session, planned))
    measured = [o for o in session.problem.objectives if o.name not in session.dense_costs]
    return min(contenders, key=lambda e: [o.loss(e.values[o.name]) for o in measured])


@contextlib.contextmanager
def _reopened(job: Job, path: Path, progress: OnProgress) -> Iterator[Session]:
    """The session of a run, with the threads and the form it had: its numbers come out the same to the last bit."""
    folder = RunFolder.open(path)
    records = read_run(folder.journal)
    if not records:
        raise RunNotFound(f"{path} was stopped before it measured anything. Go on with: autoprune resume {path}")
    with torch_threads(recorded_threads(records, job)):
        session = open_session(job, progress, recorded_tuning(records), folder.bank)
        check_identity(session, records[0])
        yield session


def _cost_bound(session: Session, budget: str) -> Bound:
    bound = Bound.parse(budget).absolute(session.dense_costs)
    if bound.name not in session.dense_costs or bound.sense != "<=":
        raise ConfigError(f"expected a budget on one of {sorted(session.dense_costs)}, as in macs=0.4, got {budget!r}")
    return bound


def _scored(session: Session, candidate: Candidate) -> Evaluation:
    evaluation = session.scorer.score(candidate)
    if not evaluation.ok:
        raise RunFailed(f"the plan for this budget cannot be scored: {evaluation.cause}")
    return replace(evaluation, values={**evaluation.values, **session.problem.costs_of(candidate)})
