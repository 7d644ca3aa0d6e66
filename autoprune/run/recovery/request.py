"""Checks a request to recover a network before torch or the model is loaded."""

from __future__ import annotations

from pathlib import Path

from autoprune.run.records.folder import check_new
from autoprune.run.recovery.written import folder_name
from autoprune.run.results.exporter import DEFAULT, Format, check_format
from autoprune.run.results.front_file import Shown, show_front


def check_recover(path: Path, pick: str, out: Path | None, format: Format = DEFAULT, name: str | None = None) -> Shown:
    """The member that would be recovered, with the reason. Raises an error if the pick finds no member, the folder is
    taken, or the format or the name is invalid.
    """
    if isinstance(format, str):
        check_format(format)
    found = show_front(path, pick)
    folder_name(found.members[0], name)
    if out is not None:
        check_new(out, "the export")
    return found
