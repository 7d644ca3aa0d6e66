"""The journal: the state of a run on disk, as JSON lines with checksums, from which everything else is replayed.

A line is {"crc":"...","record":...} with the CRC-32 of the record as written. The record has the number of its line, so
that missing, duplicate and misplaced lines are found. A torn last line (of a process killed while writing) is dropped
before the next append; a bad line anywhere else is an error that names it. Line ends of Windows and a byte order mark,
which editors and version control add, are ignored.

The first record identifies the run. "ask" has the candidates that a searcher proposed, "tell" an evaluation that it was
told, "answer" an evaluation that will be told later, "end" the reason why a search ended
and the seconds that it took, those before a resume included.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import math
import os
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from autoprune.core.evaluation import Evaluation
from autoprune.core.process import end_unless
from autoprune.errors import JournalError, JournalLocked
from autoprune.run.records.checks import Record, first_wrong, is_evaluation
from autoprune.run.records.folder import write_bytes

VERSION = 2  # the version of the records; a journal of a later one is refused
NUMBERED = 2  # the first version whose records have the numbers of their lines
LINE = "line"  # the key of the line number
SYNC_SECONDS = 0.25  # least time between syncs, as each takes milliseconds and there may be thousands of evaluations

_MARK = b"\xef\xbb\xbf"  # a byte order mark
_BEFORE_CRC, _BEFORE_BODY = b'{"crc":"', b'","record":'
_BODY = len(_BEFORE_CRC) + 8 + len(_BEFORE_BODY)  # the position of the record in a line

_log = logging.getLogger(__name__)


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All complete records, in order; empty if there is no journal yet. A torn last line is skipped with a warning."""
    if not path.exists():
        return []
    records, good = _parse(path)
    if good < path.stat().st_size:
        _log.warning("%s: the last line is torn and left out", path)
    return records


def read_run(path: Path) -> list[dict[str, Any]]:
    """All records, as from `read_journal`, after checks. JournalError, with file and line, if one is invalid."""
    records = read_journal(path)
    check_records(path, records)
    return records


def check_records(path: Path, records: Sequence[Record]) -> None:
    """Raises JournalError for the first invalid record of a journal."""
    wrong = first_wrong(records)
    if wrong is not None:
        raise _unusable(path, wrong[0] + 1, f"expected a record of a run, but {wrong[1]}")


def told_evaluations(records: Iterable[Record]) -> list[Evaluation]:
    """The evaluations that records say the searcher was told, in order."""
    return [Evaluation.from_json(record["evaluation"]) for record in records if record["kind"] == "tell"]


class Journal:
    """The journal of a run, open for appending by one process at a time.

    It is a context manager: entering takes the lock, reads the existing `records` and removes a torn last line. When
    `append` returns, the operating system has the record, so it survives a killed process. It is on disk within
    `SYNC_SECONDS` of work, so a machine that loses power repeats only that much work.

    Args:
        path: the file.
        repair: whether damaged lines are set aside first.
        command: the command that continues what the journal records, for messages.

    Raises:
        JournalLocked: another process writes to it; the message names the process.
        JournalError: it is damaged, of a later version, or cannot be written to.
    """

    def __init__(self, path: Path, *, repair: bool = False, command: str = "resume") -> None:
        self.path = path
        self._command = command
        self.records: list[dict[str, Any]] = []
        self._repair = repair
        self._process = os.getpid()
        self._lines: int | None = None  # number of lines; None if records are not numbered
        self._lock = filelock.FileLock(path.with_suffix(".lock"), timeout=0)
        self._owner = path.with_suffix(".owner")

    def __enter__(self) -> Journal:
        with self._told():
            try:
                self._lock.acquire()
            except filelock.Timeout:
                raise JournalLocked(
                    f"{self.path.parent}: another process writes to this run ({self._read_owner()}). "
                    "Wait for it to end, or stop it and resume."
                ) from None
            try:
                self._owner.write_text(f"process {os.getpid()} on {socket.gethostname()}")
                self._open()
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as error:  # from an earlier write, which raised then
            _log.warning("%s: %s", self.path, error)
        finally:
            self._leave()

    def _open(self) -> None:
        if self._repair:
            repair_journal(self.path)
        if self.path.exists():
            self.records, good = _parse(self.path)
            self._lines = len(self.records) if _is_numbered(self.records) else None
            if good < self.path.stat().st_size:
                _log.warning("%s: the last line was torn and is cut off", self.path)
                os.truncate(self.path, good)
        self._file = self.path.open("ab")
        self._synced = -math.inf

    def _leave(self) -> None:
        with contextlib.suppress(OSError):  # the next owner writes over it
            self._owner.unlink()
        self._lock.release()

    def append(self, record: Record) -> None:
        """Writes one record. JournalError if it cannot be written; earlier records stay intact."""
        end_unless(self._process)
        if self._lines is None and not self.records and _is_numbered([record]):
            self._lines = 0
        if self._lines is not None:
            self._lines += 1
        with self._told():
            self._file.write(encode(record, self._lines))
            self._file.flush()
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Turns the OSError of a disk that is full or read-only into a JournalError with advice."""
        try:
            yield
        except OSError as error:
            raise JournalError(
                f"{self.path} cannot be written: {error.strerror}. Its content is intact: free space, or get the right "
                f"to write there, and continue with: autoprune {self._command} {self.path.parent}"
            ) from error

    def _read_owner(self) -> str:
        with contextlib.suppress(OSError):  # the owner may just be leaving
            return self._owner.read_text(errors="replace")
        return "its owner is not known"


def repair_journal(path: Path) -> None:
    """Moves the damaged lines of a journal to journal.damaged beside it, and keeps every intact evaluation.

    After the first damaged or misplaced line it is unknown what the searcher was told. So later asks are dropped, and
    later evaluations become answers: a resumed search uses them when it asks for their candidates again.

    Raises:
        JournalError: the first line, which identifies the run, is damaged, or the journal is of a later version.
    """
    if not path.exists():
        return
    _, content = _lines(path)
    lines = [(line, _readable(_body(line))) for line in content]
    if lines and lines[0][1] is not None:
        _check_version(path, json.loads(lines[0][1]))
    first = _first_bad([body for _, body in lines])
    if first is None:
        return
    if first == 0:
        raise JournalError(f"{path}:1: the first line, which identifies the run, is damaged. Start a new run.")
    bodies = [body for _, body in lines if body is not None]
    before = _decode(bodies[:first])
    kept = [record["evaluation"] for record in _decode(bodies[first:]) if is_evaluation(record)]
    evaluations = list({json.dumps(evaluation, sort_keys=True): evaluation for evaluation in kept}.values())
    start = first + 1 if _is_numbered(before) else None
    answers = [
        encode({"kind": "answer", "evaluation": evaluation}, None if start is None else start + index)
        for index, evaluation in enumerate(evaluations)
    ]
    damaged = [line for line, body in lines if body is None]
    with path.with_suffix(".damaged").open("ab") as file:
        file.writelines(line.rstrip(b"\r\n") + b"\n" for line in damaged)
    write_bytes(path, b"".join([*(line for line, _ in lines[:first]), *answers]))
    _log.warning(
        "%s: %d damaged lines are in journal.damaged; %d evaluations after them are kept, from line %d on",
        path,
        len(damaged),
        len(answers),
        first + 1,
    )


def _first_bad(bodies: Sequence[bytes | None]) -> int | None:
    """The index of the first damaged or misplaced line; None if there is none."""
    whole = list(itertools.takewhile(lambda body: body is not None, bodies))
    records = _decode([body for body in whole if body is not None])
    wrong = first_wrong(records)
    places = [_misnumbered(records), wrong and wrong[0], len(whole) if len(whole) < len(bodies) else None]
    return min((place for place in places if place is not None), default=None)


def _is_numbered(records: Sequence[Record]) -> bool:
    return bool(records) and records[0].get("version", 0) >= NUMBERED


def _misnumbered(records: Sequence[Record]) -> int | None:
    """The index of the first record whose number is not that of its line; None if there is none, or no numbers."""
    if not _is_numbered(records):
        return None
    return next((index for index, record in enumerate(records) if record.get(LINE) != index + 1), None)


def encode(record: Record, line: int | None = None) -> bytes:
    """One line of a journal, with its number if `line` is given."""
    record = record if line is None else {**record, LINE: line}
    body = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return b"%s%08x%s%s}\n" % (_BEFORE_CRC, zlib.crc32(body), _BEFORE_BODY, body)


def _body(line: bytes) -> bytes | None:
    """The record of a line as written, or None if the line is incomplete."""
    if line.endswith(b"\r\n"):
        line = line[:-2] + b"\n"
    body = line[_BODY:-2]
    whole = (
        body[:1] == b"{"
        and line[:_BODY] == b"%s%08x%s" % (_BEFORE_CRC, zlib.crc32(body), _BEFORE_BODY)
        and line[-2:] == b"}\n"
    )
    return body if whole else None


def _readable(body: bytes | None) -> bytes | None:
    """The record, or None if it cannot be read although its checksum is right, as another program wrote it."""
    try:
        json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return body


def _decode(bodies: Sequence[bytes]) -> list[dict[str, Any]]:
    """The records, decoded in one call with the garbage collector off, which takes half the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        records: list[dict[str, Any]] = json.loads(b"[%s]" % b",".join(bodies))
    finally:
        if collects:
            gc.enable()
    return records


def _lines(path: Path) -> tuple[int, list[bytes]]:
    """The number of bytes before the first line, and the lines."""
    content = path.read_bytes()
    start = len(_MARK) if content.startswith(_MARK) else 0
    return start, content[start:].splitlines(keepends=True)


def _parse(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The complete records, without their numbers, and the number of bytes that they take."""
    bodies: list[bytes] = []
    good, lines = _lines(path)
    for number, line in enumerate(lines, start=1):
        body = _body(line)
        if body is not None:
            bodies.append(body)
            good += len(line)
        elif number < len(lines):
            raise _unusable(path, number, f"expected a record with its checksum, got {line[:60]!r}")
    try:
        records = _decode(bodies)
    except (ValueError, RecursionError) as error:
        number = next(number for number, body in enumerate(bodies, start=1) if _readable(body) is None)
        raise _unusable(path, number, "expected a record in JSON, got one with a checksum that is not") from error
    _check_version(path, records[0] if records else {})
    misplaced = _misnumbered(records)
    if misplaced is not None:
        said = records[misplaced].get(LINE)
        raise _unusable(path, misplaced + 1, f"expected record {misplaced + 1}, got record {said}")
    for record in records:
        record.pop(LINE, None)
    return records, good


def _unusable(path: Path, line: int, what: str) -> JournalError:
    return JournalError(
        f"{path}:{line}: {what}. The file was changed, two processes wrote to it, or the disk is damaged; restore it "
        "from a copy, or keep the intact evaluations with: "
        f"autoprune resume {path.parent} --repair"
    )


def _check_version(path: Path, header: Record) -> None:
    version = header.get("version", 0)  # the first journals had none
    if not isinstance(version, int):
        raise _unusable(path, 1, f"expected the version of the journal as a whole number, got {version!r}")
    if version > VERSION:
        raise JournalError(
            f"{path}: expected a journal of version {VERSION} at most, got version {version}. It was written by a "
            "later autoprune; use that version to continue."
        )
