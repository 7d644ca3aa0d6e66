"""Audits a finished run: `autoprune audit` and `front.audit`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from autoprune.core.evaluation import Evaluation
from autoprune.run.after import as_it_ran, open_again
from autoprune.run.audits.conduct import conduct
from autoprune.run.audits.records import AuditRecords
from autoprune.run.audits.request import AuditRequest
from autoprune.run.audits.results import GuideAudit
from autoprune.run.drive import report_or_warn
from autoprune.run.executors.computing import versions
from autoprune.run.identity import identity_of
from autoprune.run.records.documents import write_checked
from autoprune.run.records.folder import RunFolder, write_text
from autoprune.run.records.journal import told_evaluations
from autoprune.run.results.front_file import FrontFile, read_front_file
from autoprune.run.session.job import Job, OnProgress, silent
from autoprune.run.session.session import Session


def audit(job: Job, path: Path, request: AuditRequest, progress: OnProgress = silent) -> GuideAudit:
    """Audits the guide of a run, and writes audit.json, audit.csv and the report.

    Networks of one budget are measured, trained and measured again; the audit shows how far each value before training
    foretells which network is better after it. Finished networks are kept in audit.jsonl, so that an audit that was
    stopped goes on where it was, with the same result.

    Args:
        job: the settings of the run.
        path: the run folder.
        request: the settings of the audit.
        progress: receives the progress.

    Raises:
        ConfigError: the data have no train set, or the band is invalid or has too few networks.
        RunNotFound: the run has no front yet.
        JournalLocked: another process audits this run.
    """
    folder = RunFolder.open(path.absolute())  # the job's own code may change the current directory
    front = read_front_file(folder)
    with as_it_ran(job, folder.path) as records:
        session = open_again(job, folder.path, records, progress)
        return audit_session(session, front, told_evaluations(records), request, folder)


def audit_session(
    session: Session,
    front: FrontFile,
    evaluations: Sequence[Evaluation],
    request: AuditRequest,
    folder: RunFolder | None,
) -> GuideAudit:
    """Audits the run of an open session, see `audit`; without a folder nothing is written."""
    band = request.band_of(front)
    facts = {"run": identity_of(session), "threads": torch.get_num_threads(), "software": versions()}
    with AuditRecords.at(None if folder is None else folder.audit_records) as records:
        found = conduct(session, evaluations, band, request, records, facts)
    if folder is not None:
        write_checked(folder.audit_json, found.to_json())
        write_text(folder.audit_csv, found.to_csv())
        report_or_warn(folder)
    return found
