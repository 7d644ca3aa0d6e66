"""What a job knows that must not be written: checked to be there, and kept out of the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from autoprune.errors import ConfigError
from autoprune.run.fingerprint.secrets import missing_in, secrets_in
from autoprune.run.loop.controller import Append
from autoprune.run.records.checks import Record
from autoprune.run.session.job import Job


def secrets_of(job: Job) -> set[str]:
    """The values of a job that must not be written."""
    return secrets_in(dict(job.document)) | secrets_in({"run": asdict(job.executor)})


def check_given(job: Job) -> None:
    """Raises ConfigError for what workers need and job.yaml does not have, because it may be secret."""
    needed = missing_in({"runtime_env": dict(job.executor.runtime_env), "address": job.executor.address})
    if needed:
        raise ConfigError(
            f"expected the environment variables {', '.join(needed)}, which are not set. What may be secret is not "
            "written to a run folder; set them to the values the run was started with, or pass "
            f"--set run.runtime_env.env_vars.{needed[0]}=..."
        )


def hiding(append: Append, clean: Callable[[Any], Any]) -> Append:
    """Writes records to a journal without secrets in the messages of failures."""

    def write(record: Record) -> None:
        evaluation = record.get("evaluation", {})
        if evaluation.get("cause"):
            record = {**record, "evaluation": {**evaluation, "cause": clean(evaluation["cause"])}}
        append({**record, "why": clean(record["why"])} if "why" in record else record)

    return write
