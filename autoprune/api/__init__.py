"""The front door in Python: `search` and `open_run`, and the front that both return.

Here: arguments turned into a job, and a front that builds, exports, solves and resumes. Not here: how a search runs.
"""

from autoprune.api.front import PrunedFront
from autoprune.api.opening import open_run
from autoprune.api.searching import search

__all__ = ["PrunedFront", "open_run", "search"]
