"""The JSON files of a run folder, written with a checksum. Errors of reading name the file and the defect."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoprune.errors import AutopruneError, RunDamaged
from autoprune.run.records.folder import write_json

CHECKSUM = "checksum"  # the key of the checksum of all other content
CHECKSUM_DIGITS = 16


def write_checked(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a mapping with a checksum of its content."""
    plain = json.loads(json.dumps(data))  # turns tuples into lists, as when it is read again
    write_json(path, {**plain, CHECKSUM: _digest(plain)})


def read_checked(path: Path) -> dict[str, Any]:
    """Reads a mapping written by `write_checked`. Files of earlier versions have no checksum.

    Raises:
        RunDamaged: the file is not JSON, not a mapping, or was changed; the message has the line if it is known.
    """
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise damaged(path, f"expected JSON, got something else at line {error.lineno}: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise damaged(path, f"expected JSON, it cannot be read as that ({type(error).__name__})") from error
    if not isinstance(data, dict):
        raise damaged(path, f"expected a mapping, got a {type(data).__name__}")
    checksum = data.pop(CHECKSUM, None)
    if checksum is not None and checksum != _digest(data):
        raise damaged(path, "its content was changed: it does not have its checksum")
    return data


@contextlib.contextmanager
def understanding(path: Path) -> Iterator[None]:
    """Turns the errors of reading content of a wrong form into RunDamaged."""
    try:
        yield
    except RunDamaged:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, AutopruneError) as error:
        raise damaged(path, f"its content has a wrong form: {type(error).__name__}: {error}") from error


def damaged(path: Path, what: str) -> RunDamaged:
    """The error for a file that a resumed run writes again."""
    return RunDamaged(f"{path}: {what}. Write it again with: autoprune resume {path.parent}")


def _digest(data: Mapping[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:CHECKSUM_DIGITS]
