"""What happens during a run, as JSON lines for whoever watches: events.jsonl in the run folder.

Nothing is read back from it, and a run goes on without it: where it cannot be written, that is logged once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from autoprune.core.process import end_unless

BEFORE = 1000  # of a run without a folder no more are remembered

_log = logging.getLogger(__name__)


class Events:
    """From `keep` on events are written to a file, those before it included. Use as a context manager.

    Each line has "time" (seconds since 1970), "event" and what belongs to it, without what `clean` takes out.
    """

    def __init__(self, clean: Callable[[Any], Any] = lambda facts: facts) -> None:
        self._clean = clean
        self._process = os.getpid()
        self._warned: set[str] = set()
        self._file: IO[str] | None = None
        self._early: deque[str] | None = deque(maxlen=BEFORE)  # None from `keep` on

    def __enter__(self) -> Events:
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        end_unless(self._process)
        line = json.dumps({"time": round(time.time(), 3), "event": event, **self._clean(facts)}) + "\n"
        if self._early is not None:
            self._early.append(line)
        else:
            self._write(line)

    def warn(self, text: str) -> None:
        """Logs a warning and adds it as an event, each text once."""
        if text and text not in self._warned:
            self._warned.add(text)
            _log.warning("%s", text)
            self.add("warning", {"text": text})

    def keep(self, path: Path) -> None:
        early, self._early = self._early, None
        try:
            self._file = path.open("a", encoding="utf-8", buffering=1)  # a line at a time
        except OSError as error:
            _log.warning("%s cannot be written, the run goes on without it: %s", path, error)
        self._write("".join(early or ()))

    def _write(self, text: str) -> None:
        if self._file is None:
            return
        try:
            self._file.write(text)
        except OSError as error:
            _log.warning("%s: events are not written any more: %s", self._file.name, error)
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what could not be written was told
                file.close()
