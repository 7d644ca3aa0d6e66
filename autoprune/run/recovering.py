"""Recovers networks of a finished run: `autoprune recover` and `member.recover`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from autoprune.errors import ConfigError
from autoprune.run.after import as_it_ran, open_again
from autoprune.run.drive import report_or_warn
from autoprune.run.records.folder import RunFolder
from autoprune.run.recovery.conduct import recover_member, training_examples
from autoprune.run.recovery.request import check_recover
from autoprune.run.recovery.written import NETWORK, RESULT, check_same, folder_name, read_result
from autoprune.run.results.export import load
from autoprune.run.results.exporter import DEFAULT, Format, find_exporter
from autoprune.run.results.member import Member
from autoprune.run.results.members import Built, write_member
from autoprune.run.session.job import Job, OnProgress, silent
from autoprune.run.session.session import Session
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.processes import Processes, launched


def recover(
    job: Job,
    path: Path,
    pick: str,
    out: Path | None = None,
    name: str | None = None,
    progress: OnProgress = silent,
    format: Format = DEFAULT,
) -> Member:
    """Recovers the member of a run's front that a pick finds, with the options `job.recover`.

    Checkpoints and the result are in the folder recovered/NAME of the run. A recovery that was stopped goes on from its
    last checkpoint, and one that is complete is only exported.

    Args:
        job: the settings of the run.
        path: the run folder.
        pick: which member to recover.
        out: if given, the recovered network is exported there.
        name: the name of the recovery; that of the network by default.
        progress: receives the progress.
        format: the format of the export.

    Raises:
        ConfigError: there are no options, the data have no examples to train on, or the recovery was started with other
            options.
        RunNotFound: the run has no front yet.
        RunExists: `out` is taken.
    """
    member = check_recover(path, pick, out, format, name).members[0]
    if job.recover is None:
        raise ConfigError("recover: expected the number of epochs or steps, got neither. Give --epochs or --steps.")
    folder = RunFolder.open(path.absolute())  # the job's own code may change the current directory
    out = None if out is None else out.absolute()
    processes = launched()  # before the session, as it decides on the device of this process
    with as_it_ran(job, folder.path) as records:
        session = open_again(job, folder.path, records, progress if processes.is_first else silent)
        built = recover_in(session, member, job.recover, name, folder, processes)
        if out is not None and processes.is_first:
            write_member(session, built, out, find_exporter(format))
    return built.member


def recover_in(
    session: Session,
    member: Member,
    options: Recovery,
    name: str | None,
    folder: RunFolder | None,
    processes: Processes | None = None,
) -> Built:
    """Recovers a member in an open session, see `recover`; without a folder nothing is written."""
    name, processes = folder_name(member, name), processes or Processes()
    if folder is None:
        return recover_member(session, member, options, name, None, processes)
    place = folder.recovered / name
    if not (place / RESULT).is_file():
        built = recover_member(session, member, options, name, place, processes)
        if processes.is_first:
            report_or_warn(folder)
        return built
    found = read_result(folder, name)
    asked = {"candidate": member.candidate, "options": options.to_json()}
    check_same(
        place, dict(found.recovered or {}), {**asked, "examples": training_examples(session.data, options).sha256}
    )
    return Built(recovered_network(session, found, folder), found)


def recovered_network(session: Session, member: Member, folder: RunFolder) -> nn.Module:
    """The network of a complete recovery, read from its folder."""
    assert member.recovered is not None
    return load(session.model, folder.recovered / member.recovered["name"] / NETWORK)
