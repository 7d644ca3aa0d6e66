"""Drives and records: the loop, the journal, the executors, the front, exports and reports.

The only room that writes run folders and that may import ray. Imports every room but config and cli. Its functions are
resolved when they are first used: printing a front needs no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autoprune.run.after import export, read_evaluations, solve
    from autoprune.run.checks import check_export, check_solve
    from autoprune.run.criterion_file import table_of
    from autoprune.run.criterion_search import find_criterion
    from autoprune.run.drive import Inspection, RunResult, inspect_job, resume, search
    from autoprune.run.export import load
    from autoprune.run.front_file import read_front, show_front
    from autoprune.run.optuna_export import export_study
    from autoprune.run.report import write_report as report

_HOMES = {
    "Inspection": "autoprune.run.drive",
    "RunResult": "autoprune.run.drive",
    "check_export": "autoprune.run.checks",
    "check_solve": "autoprune.run.checks",
    "export": "autoprune.run.after",
    "export_study": "autoprune.run.optuna_export",
    "find_criterion": "autoprune.run.criterion_search",
    "inspect_job": "autoprune.run.drive",
    "load": "autoprune.run.export",
    "read_evaluations": "autoprune.run.after",
    "read_front": "autoprune.run.front_file",
    "report": "autoprune.run.report",
    "resume": "autoprune.run.drive",
    "search": "autoprune.run.drive",
    "show_front": "autoprune.run.front_file",
    "solve": "autoprune.run.after",
    "table_of": "autoprune.run.criterion_file",
}

__all__ = [
    "Inspection",
    "RunResult",
    "check_export",
    "check_solve",
    "export",
    "export_study",
    "find_criterion",
    "inspect_job",
    "load",
    "read_evaluations",
    "read_front",
    "read_left_out",
    "report",
    "resume",
    "search",
    "show_front",
    "solve",
    "table_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'autoprune.run' has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(_HOMES[name]), "write_report" if name == "report" else name)


class _RunRoom(ModuleType):
    """The room, two of whose functions (export and report) have the name of one of its modules, which Python binds here
    once it is imported: the functions win.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _RunRoom
