"""Secrets of a job: checks that they are set, and keeps them out of the journal."""

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
    """The secret values of a job, which must not be written."""
    return secrets_in(dict(job.document)) | secrets_in({"run": asdict(job.executor)})


def check_given(job: Job) -> None:
    """Raises ConfigError if environment variables of workers are missing, which job.yaml omits as possible secrets."""
    needed = missing_in({"runtime_env": dict(job.executor.runtime_env), "address": job.executor.address})
    if needed:
        raise ConfigError(
            f"expected the environment variables {', '.join(needed)}, which are not set. Possible secrets are not "
            "written to a run folder; set them to the values the run was started with, or pass "
            f"--set run.runtime_env.env_vars.{needed[0]}=..."
        )


def hiding(append: Append, clean: Callable[[Any], Any]) -> Append:
    """Wraps `append` to remove secrets from the messages of failures."""

    def write(record: Record) -> None:
        evaluation = record.get("evaluation", {})
        if evaluation.get("cause"):
            record = {**record, "evaluation": {**evaluation, "cause": clean(evaluation["cause"])}}
        append({**record, "why": clean(record["why"])} if "why" in record else record)

    return write
