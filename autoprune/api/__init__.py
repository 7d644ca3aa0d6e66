"""The Python interface: `search`, `open_run`, and the front that both return.

This package turns arguments into a job, and has the front that builds, exports, solves and resumes. The search itself
is in `autoprune.run`.
"""

from autoprune.api.front import PrunedFront
from autoprune.api.opening import open_run
from autoprune.api.searching import search

__all__ = ["PrunedFront", "open_run", "search"]
