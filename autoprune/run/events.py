"""What happens during a run, as JSON lines for whoever watches: events.jsonl in the run folder.

Nothing is read back from it, and a run goes on without it: where it cannot be written, that is logged once.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEFORE = 1000  # of a run without a folder no more are remembered

_log = logging.getLogger(__name__)


class Events:
    """Counts events by name; from `keep` on they are written to a file, those before it included.

    Each line has "time" (seconds since 1970), "event" and what belongs to it.
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._path: Path | None = None
        self._unwritten: deque[str] = deque(maxlen=BEFORE)

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        self.counts[event] = self.counts.get(event, 0) + 1
        self._unwritten.append(json.dumps({"time": round(time.time(), 3), "event": event, **facts}))
        if self._path is not None:
            self._write()

    def keep(self, path: Path) -> None:
        self._path = path
        self._write()

    def _write(self) -> None:
        if self._path is None or not self._unwritten:
            return
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in self._unwritten)
            self._unwritten.clear()
        except OSError as error:
            _log.warning("%s: events are not written any more: %s", self._path, error)
            self._path = None
