"""The journal: the one state of a run on disk. JSON lines, a checksum each; everything else is replayed from it.

A line is {"crc": ..., "record": ...} with the CRC-32 of the record's canonical JSON. A torn last line (the process was
killed while writing) is dropped before the next append; a bad line anywhere else is an error that names it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from autoprune.core.evaluation import Evaluation
from autoprune.errors import JournalError, JournalLocked

Record = Mapping[str, Any]
_log = logging.getLogger(__name__)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All complete records, in order; none where there is no journal yet. A torn last line is left out and logged."""
    if not path.exists():
        return []
    records, good = _parse(path)
    if good < path.stat().st_size:
        _log.warning("%s: the last line is torn and left out", path)
    return records


def told(records: Iterable[Record]) -> list[Evaluation]:
    """The evaluations among records, in order."""
    return [Evaluation.from_json(record["evaluation"]) for record in records if record["kind"] == "tell"]


class Journal:
    """The journal of a run, open for appending by one process at a time.

    Use as a context manager: entering takes the lock and cuts off a torn last line. `append` returns when the record
    is on disk (`sync`) or with the operating system, which is enough to outlive a killed process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path.with_suffix(".lock"), timeout=0)
        self._owner = path.with_suffix(".owner")

    def __enter__(self) -> Journal:
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise JournalLocked(
                f"{self.path.parent}: another process writes to this run ({self._read_owner()}). "
                "Wait for it to end, or stop it and resume."
            ) from None
        self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        self._cut_torn_line()
        self._file = self.path.open("ab")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._owner.unlink(missing_ok=True)
        self._lock.release()

    def append(self, record: Record, *, sync: bool = True) -> None:
        self._file.write(encode(record))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())

    def _read_owner(self) -> str:
        with contextlib.suppress(OSError):  # the owner may just be leaving
            return self._owner.read_text()
        return "its owner is not known"

    def _cut_torn_line(self) -> None:
        if self.path.exists():
            _, good = _parse(self.path)
            if good < self.path.stat().st_size:
                _log.warning("%s: the last line was torn and is cut off", self.path)
                with self.path.open("r+b") as file:
                    file.truncate(good)


def encode(record: Record) -> bytes:
    """One line of a journal."""
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f'{{"crc":"{zlib.crc32(body.encode()):08x}","record":{body}}}\n'.encode()


def _decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line, or None when the line is not whole."""
    try:
        data = json.loads(line)
        record: dict[str, Any] = data["record"]
        return record if line == encode(record) else None
    except (ValueError, KeyError, TypeError):
        return None


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The complete records and the number of bytes they take."""
    records: list[dict[str, Any]] = []
    good = 0
    for number, line, last in _lines(path):
        record = _decode(line)
        if record is not None:
            records.append(record)
            good += len(line)
        elif not last:
            raise JournalError(
                f"{path}:{number}: expected a record with its checksum, got {line[:60]!r}. The file was changed or the "
                "disk is damaged; restore it from a copy, or cut it before this line to resume from there."
            )
    return records, good


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        yield number, line, number == len(lines)
