"""Measurements of built networks, kept in the run folder until the front is written.

So a run that is killed while it builds its front repeats only the networks that were not finished.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from autoprune.core.space import Levels
from autoprune.errors import RunDamaged
from autoprune.run.records.documents import read_checked, understanding, write_checked
from autoprune.run.records.folder import RunFolder

_log = logging.getLogger(__name__)


class BuiltFile:
    """The measurements of networks that were built for the front of a run, by levels.

    Args:
        folder: the run folder; None keeps nothing.
        software: the versions that networks are built with. Measurements of other versions are not used.
    """

    def __init__(self, folder: RunFolder | None, software: Mapping[str, str]) -> None:
        self._path = None if folder is None else folder.built
        self._software = dict(software)
        self.known = self._read()

    def add(self, levels: Levels, measured: Mapping[str, Any]) -> None:
        """Keeps the measurements of one more network."""
        self.known[levels] = measured
        if self._path is not None:
            rows = [{"levels": list(levels), "measured": measured} for levels, measured in self.known.items()]
            write_checked(self._path, {"software": self._software, "built": rows})

    def remove(self) -> None:
        """Removes the file, once the front is written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _read(self) -> dict[Levels, Mapping[str, Any]]:
        if self._path is None or not self._path.is_file():
            return {}
        try:
            document = read_checked(self._path)
            with understanding(self._path):
                if document["software"] != self._software:
                    return {}
                return {tuple(row["levels"]): row["measured"] for row in document["built"]}
        except RunDamaged as error:
            _log.warning("the networks of the front are built again: %s", error)
            return {}
