"""From a YAML file to a job: text -> plain data with places -> frozen models -> resolved objects.

Here: everything a job file can contain, and every mistake in it with its file and line, reported together. Not here:
tracing, searching, run folders. Only cli and api import it.
"""

from autoprune.config.loading import load, load_run
from autoprune.config.spec import JobSpec

__all__ = ["JobSpec", "load", "load_run"]
