"""Progress of a search in Python: bars in a terminal or a notebook, or calls of a user's function."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from autoprune.run.session.job import OnProgress, Progress, silent


class Relay:
    """Passes progress on to the current display, because a session outlives the display that it started with."""

    def __init__(self, shown: bool | OnProgress = True) -> None:
        self._shown = shown
        self._report: OnProgress = silent

    def __call__(self, progress: Progress) -> None:
        self._report(progress)

    @contextlib.contextmanager
    def showing(self) -> Iterator[None]:
        """Shows progress inside the block."""
        with _display(self._shown) as self._report:
            try:
                yield
            finally:
                self._report = silent


@contextlib.contextmanager
def _display(shown: bool | OnProgress) -> Iterator[OnProgress]:
    if callable(shown):
        yield shown
    elif not shown:
        yield silent
    else:
        from autoprune.console import bars_where_seen  # rich takes a while to import

        with bars_where_seen() as report:
            yield report
