"""What becomes of each setting of a job that changes before its run is resumed, and a line for each that did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoprune.core.options import declared_options
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.run.records.checks import Record
from autoprune.run.session.job import Job

OPTIONS = declared_options(Scoring)
REFUSED = (  # they identify a run (run.identity): a resume with another value is refused
    *("model", "data", "rules", "objectives", "searcher", "fitness", "calls", "criterion", "masks", "costs"),
    *("evaluations", "seed", "guide", "compensation", "finetune", "device"),
    *(f"scoring.{declared.name}" for declared in OPTIONS if declared.option.changes_scores),
)
TOLD = {  # they may change, and a line tells from when the new value counts
    "front_size": "it counts for the front that is built at the end of this resume",
    "stop.seconds": "the seconds that the run has used already count",
    "stop.target": "it counts for all evaluations, those before the resume too",
    "stop.stagnation": "it counts for all evaluations, those before the resume too",
    "deterministic": "it counts from the first new evaluation on, and earlier ones stay as they are",
    "threads": "it is not used: the run goes on with its own number, on which the last bits of scores depend",
    "tune": "it is not used: the run goes on with the form that its networks were scored in",
}
FREE = (  # no result depends on them: a change needs no word
    *("name", "executor", "expected", "trackers", "document"),
    *(f"scoring.{declared.name}" for declared in OPTIONS if not declared.option.changes_scores),
)


def settings_of(job: Job) -> dict[str, Any]:
    """The settings of a job that may change, as the first record of a journal has them."""
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


def changed_settings(job: Job, header: Record) -> list[str]:
    """A line for each setting that differs from the one a run was started with, with what becomes of it.

    Journals of earlier versions have no settings, and give no lines.
    """
    then: Mapping[str, Any] = header.get("settings", {})
    now = settings_of(job)
    changed = [name for name in now if name in then and now[name] != then[name]]
    return [
        f"{name} was {_shown(then[name])} when the run was started, is {_shown(now[name])}: {TOLD[name]}"
        for name in changed
    ]


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items() if entry is not None)
    if isinstance(value, list):
        return ", ".join(value) or "none"
    return "none" if value is None else str(value)
