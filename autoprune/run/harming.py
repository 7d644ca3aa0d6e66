"""Measures in depth whom the networks of a finished run harm: `autoprune harm` and `front.harm`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoprune.measure.harm.predictions import check_scores
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.after import as_it_ran, open_again
from autoprune.run.drive import report_or_warn
from autoprune.run.harms.comparison import Comparison
from autoprune.run.records.documents import read_checked, write_checked
from autoprune.run.records.folder import RunFolder
from autoprune.run.results.front_file import show_front
from autoprune.run.results.member import Member
from autoprune.run.results.members import rebuild_member
from autoprune.run.session.job import Job, OnProgress, Progress, silent
from autoprune.run.session.session import Session

Harms = dict[str, dict[str, Any]]


def harm(job: Job, path: Path, pick: str | None = None, progress: OnProgress = silent) -> Harms:
    """Compares members of a run's front with the dense network, and writes harm.json and the report.

    Args:
        job: the settings of the run.
        path: the run folder.
        pick: names one member, such as "macs<=0.5"; None takes all.
        progress: receives the progress.

    Returns:
        The harm of each network, by its name (run.harms.comparison).

    Raises:
        UnsupportedModel: the networks do not return scores of classes.
        RunNotFound: the run has no front yet.
    """
    folder = RunFolder.open(path.absolute())  # the job's own code may change the current directory
    members = show_front(folder.path, pick).members
    with as_it_ran(job, folder.path) as records:
        return harm_session(open_again(job, folder.path, records, progress), members, folder)


def harm_session(session: Session, members: Sequence[Member], folder: RunFolder | None) -> Harms:
    """Compares members with the dense network, see `harm`; without a folder nothing is written."""
    check_scores(session.reported[0])
    comparison, found = Comparison(session.model, session.reported), {}
    for number, member in enumerate(members):
        session.progress(Progress("harm", number, len(members)))
        found[member.candidate] = _compared(session, comparison, member)
    session.progress(Progress("harm", len(members), len(members)))
    if folder is not None:
        write_checked(folder.harm, {"networks": {**_known(folder), **found}})
        report_or_warn(folder)
    return found


def _compared(session: Session, comparison: Comparison, member: Member) -> dict[str, Any]:
    network, subnet = rebuild_member(session, member).network, session.bank.subnet(member.counts)
    with torch_threads(session.scorer.scoring.form.threads):
        return comparison.of(network, subnet)


def _known(folder: RunFolder) -> Mapping[str, Any]:
    """The networks that were compared before and are still on the front."""
    if not folder.harm.is_file():
        return {}
    names = {member.candidate for member in show_front(folder.path).members}
    return {name: values for name, values in read_checked(folder.harm)["networks"].items() if name in names}
