"""The events of a run as JSON lines, for monitoring: events.jsonl in the run folder.

It is never read back. If it cannot be written, a warning is logged once, and the run continues.
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

BEFORE = 1000  # the number of events that are kept before there is a file

_log = logging.getLogger(__name__)


class Events:
    """Collects events; `keep` writes them and all later ones to a file. It is a context manager.

    Each line has "time" (seconds since 1970), "event" and its facts, from which `clean` has removed secrets.
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
            self._file = path.open("a", encoding="utf-8", buffering=1)  # flushes each line
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
            with contextlib.suppress(OSError):  # the failure to write was logged before
                file.close()
