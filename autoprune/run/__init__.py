"""Drives and records: the loop, the journal, the executors, the front, exports and reports.

The only room that writes run folders and that may import ray. Imports every room but config and cli.
"""

from autoprune.run.after import export as export
from autoprune.run.after import read_evaluations as read_evaluations
from autoprune.run.after import read_front as read_front
from autoprune.run.after import solve as solve
from autoprune.run.drive import Inspection as Inspection
from autoprune.run.drive import RunResult as RunResult
from autoprune.run.drive import inspect_job as inspect_job
from autoprune.run.drive import resume as resume
from autoprune.run.drive import search as search
from autoprune.run.export import load as load
