"""The journal: the one state of a run on disk. JSON lines, a checksum each; everything else is replayed from it.

A line is {"crc": ..., "record": ...} with the CRC-32 of the record's canonical JSON. A torn last line (the process was
killed while writing) is dropped before the next append; a bad line anywhere else is an error that names it.

The first record identifies the run. "ask" has what a searcher proposed, "tell" an evaluation it was told of, "answer"
one that is known and waits to be told, "end" why a search ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from autoprune.core.evaluation import Evaluation
from autoprune.errors import JournalError, JournalLocked
from autoprune.run.folder import write_bytes

Record = Mapping[str, Any]

VERSION = 1  # of the records; a journal of a later one is refused
SYNC_SECONDS = 0.25  # a sync takes milliseconds; thousands of evaluations a second must not wait for each

_log = logging.getLogger(__name__)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All complete records, in order; none where there is no journal yet. A torn last line is left out and logged."""
    if not path.exists():
        return []
    records, good = _parse(path)
    if good < path.stat().st_size:
        _log.warning("%s: the last line is torn and left out", path)
    if records and records[0].get("version", 0) > VERSION:
        raise JournalError(
            f"{path}: expected a journal of version {VERSION} at most, got version {records[0]['version']}. It was "
            "written by a later autoprune; use that one to go on."
        )
    return records


def told(records: Iterable[Record]) -> list[Evaluation]:
    """The evaluations among records, in order."""
    return [Evaluation.from_json(record["evaluation"]) for record in records if record["kind"] == "tell"]


class Journal:
    """The journal of a run, open for appending by one process at a time.

    Use as a context manager: entering takes the lock and cuts off a torn last line. `append` returns when the record
    is with the operating system, which is enough to outlive a killed process; it is on disk within `SYNC_SECONDS` of
    work, so that a machine that loses its power has that much to do again.
    """

    def __init__(self, path: Path, *, repair: bool = False) -> None:
        self.path = path
        self._repair = repair
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
        try:
            self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
            if self._repair:
                repair_journal(self.path)
            self._cut_torn_line()
            self._file = self.path.open("ab")
        except BaseException:
            self._leave()
            raise
        self._synced = -math.inf
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._leave()

    def _leave(self) -> None:
        self._owner.unlink(missing_ok=True)
        self._lock.release()

    def append(self, record: Record) -> None:
        self._file.write(encode(record))
        self._file.flush()
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

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


def repair_journal(path: Path) -> None:
    """Takes damaged lines out of a journal, into journal.damaged beside it, and keeps every evaluation that is whole.

    From the first damaged line on it is not known any more what the searcher saw. So asks behind it are left out, and
    evaluations become answers: a search that resumes finds them when it asks for their candidates again.

    Raises:
        JournalError: the first line is damaged, which says what run this is.
    """
    lines = [(line, _decode(line)) for line in path.read_bytes().splitlines(keepends=True)]
    first = next((index for index, (_, record) in enumerate(lines) if record is None), None)
    if first is None:
        return
    if first == 0:
        raise JournalError(f"{path}:1: the first line, which identifies the run, is damaged. Start a new run.")
    evaluations = [record["evaluation"] for _, record in lines[first:] if record and "evaluation" in record]
    answers = [encode({"kind": "answer", "evaluation": evaluation}) for evaluation in evaluations]
    damaged = [line for line, record in lines if record is None]
    with path.with_suffix(".damaged").open("ab") as file:
        file.writelines(line.rstrip(b"\n") + b"\n" for line in damaged)
    write_bytes(path, b"".join([*(line for line, _ in lines[:first]), *answers]))
    _log.warning(
        "%s: %d damaged lines are in journal.damaged; %d evaluations behind them are kept",
        path,
        len(damaged),
        len(answers),
    )


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
                "disk is damaged; restore it from a copy, or set the damaged lines aside with: "
                f"autoprune resume {path.parent} --repair"
            )
    return records, good


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    lines = path.read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        yield number, line, number == len(lines)
