"""Drives and records: the loop, the journal, the executors, the front, exports and reports.

The only room that writes run folders and that may import ray. Imports every room but config and cli.
"""

from autoprune.run.after import export, read_evaluations, read_front, read_left_out, solve
from autoprune.run.criterion_file import table_of
from autoprune.run.criterion_search import find_criterion
from autoprune.run.drive import Inspection, RunResult, inspect_job, resume, search
from autoprune.run.export import load
from autoprune.run.optuna_export import export_study
from autoprune.run.report import write_report as report

__all__ = [
    "Inspection",
    "RunResult",
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
    "solve",
    "table_of",
]
