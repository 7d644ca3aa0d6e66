"""Runs: the loop, the journal, the executors, the front, exports and reports.

Only this folder writes run folders and may import ray. It imports every other folder except config and cli. Its
functions are imported when first used, so that printing a front does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.run.after import export, read_evaluations, solve
    from autoprune.run.auditing import audit
    from autoprune.run.audits.request import AuditRequest, check_audit
    from autoprune.run.criterion.judge import find_criterion
    from autoprune.run.criterion.plugin import table_of
    from autoprune.run.drive import RunResult, resume, search
    from autoprune.run.harming import harm
    from autoprune.run.harms.wording import lottery, worded
    from autoprune.run.inspection import Inspection, inspect_job
    from autoprune.run.recovering import recover
    from autoprune.run.recovery.request import check_recover
    from autoprune.run.recovery.written import read_recovered
    from autoprune.run.report import write_report
    from autoprune.run.results.export import load
    from autoprune.run.results.front_file import read_front, show_front
    from autoprune.run.results.optuna import export_study
    from autoprune.run.results.requests import check_export, check_solve

_HOMES = {
    "AuditRequest": "autoprune.run.audits.request",
    "Inspection": "autoprune.run.inspection",
    "RunResult": "autoprune.run.drive",
    "audit": "autoprune.run.auditing",
    "check_audit": "autoprune.run.audits.request",
    "check_recover": "autoprune.run.recovery.request",
    "check_export": "autoprune.run.results.requests",
    "check_solve": "autoprune.run.results.requests",
    "export": "autoprune.run.after",
    "export_study": "autoprune.run.results.optuna",
    "find_criterion": "autoprune.run.criterion.judge",
    "harm": "autoprune.run.harming",
    "inspect_job": "autoprune.run.inspection",
    "load": "autoprune.run.results.export",
    "lottery": "autoprune.run.harms.wording",
    "read_evaluations": "autoprune.run.after",
    "read_front": "autoprune.run.results.front_file",
    "read_recovered": "autoprune.run.recovery.written",
    "recover": "autoprune.run.recovering",
    "resume": "autoprune.run.drive",
    "search": "autoprune.run.drive",
    "show_front": "autoprune.run.results.front_file",
    "solve": "autoprune.run.after",
    "table_of": "autoprune.run.criterion.plugin",
    "worded": "autoprune.run.harms.wording",
    "write_report": "autoprune.run.report",
}

__all__ = [
    "AuditRequest",
    "Inspection",
    "RunResult",
    "audit",
    "check_audit",
    "check_export",
    "check_recover",
    "check_solve",
    "export",
    "export_study",
    "find_criterion",
    "harm",
    "inspect_job",
    "load",
    "lottery",
    "read_evaluations",
    "read_front",
    "read_recovered",
    "recover",
    "resume",
    "search",
    "show_front",
    "solve",
    "table_of",
    "worded",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoprune.run' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(_HOMES[name]), name)
