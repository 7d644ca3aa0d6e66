"""The measurements of an audit in the run folder: one appended line for each, so that a killed audit goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import JournalError, JournalLocked
from autoprune.run.records.journal import VERSION, Journal, read_journal

Values = Mapping[str, Any]


class AuditRecords:
    """Measurements by what was measured. Those of audits with other settings stay in the file and are not used.

    Args:
        journal: the file; None keeps measurements in memory only.
    """

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal
        self._known: dict[str, Values] = {}
        for record in journal.records if journal is not None else ():
            if record["kind"] == "measured":
                self._known[record["key"]] = dict(record["values"])

    @staticmethod
    @contextlib.contextmanager
    def at(path: Path | None) -> Iterator[AuditRecords]:
        """Opens the file of a run, which no other process writes meanwhile.

        Raises:
            JournalLocked: another process audits this run.
            JournalError: the file is damaged, or cannot be written.
        """
        if path is None:
            yield AuditRecords()
            return
        try:
            read_journal(path)
        except JournalError as error:
            raise JournalError(f"{error} Or remove {path}, to begin the audit anew.") from error
        with _opened(path) as journal:
            if not journal.records:
                journal.append({"kind": "audit", "version": VERSION})
            yield AuditRecords(journal)

    def get(self, key: Mapping[str, Any], measure: Callable[[], Values]) -> Values:
        """The values of a key, measured and recorded if they are not known."""
        digest = _digest(key)
        if digest not in self._known:
            self._known[digest] = measure()
            if self._journal is not None:  # pairs, as the keys of a record are sorted
                values = [[name, value] for name, value in self._known[digest].items()]
                self._journal.append({"kind": "measured", "key": digest, "values": values})
        return self._known[digest]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Journal]:
    try:
        with Journal(path, command="audit") as journal:
            yield journal
    except JournalLocked as error:
        raise JournalLocked(
            f"{path.parent}: another process audits this run. Wait for it to end, or stop it."
        ) from error


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
