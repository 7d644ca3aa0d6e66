"""The effect of changing each setting of a job before its run is resumed, and a message for each changed setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autoprune.core.options import declared_options
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.run.records.checks import Record
from autoprune.run.session.job import FRONT_SIZES, Job

OPTIONS = declared_options(Scoring)
REFUSED = (  # settings that identify a run (run.identity): a resume with another value is refused
    *("model", "data", "rules", "objectives", "searcher", "fitness", "calls", "criterion", "masks", "costs"),
    *("evaluations", "seed", "guide", "compensation", "finetune", "device"),
    *(f"scoring.{declared.name}" for declared in OPTIONS if declared.option.changes_scores),
)
TOLD = {  # settings that may change, with a message that says from when the new value applies
    "front_size": "the new value applies to the front that is built at the end of this resume",
    "stop.seconds": "the new value includes the seconds that the run has already used",
    "stop.target": "the new value applies to all evaluations, including those before the resume",
    "stop.stagnation": "the new value applies to all evaluations, including those before the resume",
    "deterministic": "the new value applies from the first new evaluation on",
    "threads": "the new value is not used: the run keeps its own number, on which the last bits of scores depend",
    "tune": "the new value is not used: the run keeps the form in which its networks were scored",
}
FREE = (  # settings on which no result depends: a change needs no message
    *("name", "executor", "expected", "trackers", "document", "recover"),
    *(f"scoring.{declared.name}" for declared in OPTIONS if not declared.option.changes_scores),
)


def settings_of(job: Job) -> dict[str, Any]:
    """The settings of a job that may change, in the form of a journal's first record."""
    found = {
        "front_size": job.front_size,
        "stop.seconds": job.stop.seconds,
        "stop.target": [bound.exact for bound in job.stop.target],
        "stop.stagnation": job.stop.stagnation,
        "deterministic": job.deterministic,
        "threads": job.threads,
        "tune": job.tune.to_json() if isinstance(job.tune, Form) else job.tune,
    }
    assert found.keys() == TOLD.keys()
    return found


def with_front_size(job: Job, header: Record) -> Job:
    """The job with the size of the front that a run was started with, unless it gives one itself."""
    if job.front_size is not None:
        return job
    return replace(job, front_size=header.get("settings", {}).get("front_size", FRONT_SIZES[0]))


def changed_settings(job: Job, header: Record) -> list[str]:
    """A message for each setting that differs from the one that a run was started with, with its effect.

    Journals of earlier versions have no settings, and give no messages.
    """
    then: Mapping[str, Any] = header.get("settings", {})
    now = settings_of(job)
    changed = [name for name in now if name in then and now[name] != then[name]]
    return [
        f"{name} was {_shown(then[name])} when the run was started and is now {_shown(now[name])}: {TOLD[name]}"
        for name in changed
    ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)
