"""Sections of a job in files of their own: `space: FILE`, `search: FILE`, `search: {preset: FILE, ...}`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoprune.config.document import Document, KeyPath, blanks, override, read_document
from autoprune.config.shipped import places, shipped_file, taken
from autoprune.errors import ConfigError
from autoprune.plugins import find_path

PRESET = "preset"  # the key that names a section's file; keys beside it override the file's


@dataclass(frozen=True)
class _Kind:
    """The first line of such a file, and the remedy for a name that is no file."""

    begins: str
    remedy: str


SECTION_FILES = {
    "space": _Kind("version: 1", "Check the path."),
    "search": _Kind("searcher: auto", "Check the path; a searcher alone is `search: {searcher: auto}`."),
}


@dataclass
class Assembly:
    """A document whose sections are being inlined.

    `problems` holds sentences about it and the settings, `broken` those about files, by section, and `remarks` the
    lines that name files which came with autoprune.
    """

    document: Document
    folder: Path
    problems: list[str]
    broken: dict[str, list[str]]
    remarks: list[str]

    def inline(self, section: str) -> None:
        """Replaces the name of a section's file by the file's content."""
        try:
            self.document = self._inlined(section)
        except ConfigError as error:
            self.broken[section] = error.problems
            self.document = _replaced(self.document, section, None)

    def _inlined(self, section: str) -> Document:
        document = self.document
        given = document.data.get(section)
        if isinstance(given, str):
            return _merged(document, section, self._read((section,), given), {})
        if section == "search" and isinstance(given, Mapping) and PRESET in given:
            own = {key: value for key, value in given.items() if key != PRESET}
            return _merged(document, section, self._read((section, PRESET), given[PRESET]), own)
        return document

    def _read(self, path: KeyPath, name: Any) -> Document:
        """Reads the file that the key at `path` names."""
        section = str(path[0])
        read = read_document(_short(self._find(path, name)), SECTION_FILES[section].begins)
        if section == "search" and PRESET in read.data:
            raise ConfigError(
                read.problem((PRESET,), "expected the keys of a search, got another preset. Copy its keys.")
            )
        return read

    def _find(self, path: KeyPath, name: Any) -> Path:
        """The user's own file of that name, or else the one that comes with autoprune."""
        own = find_path(name, (self.folder,)) if isinstance(name, str) else None
        if own is not None:
            return own
        shipped = shipped_file(name) if isinstance(name, str) else None
        if shipped is not None:
            self.remarks.append(taken(name, shipped))
            return shipped
        section = str(path[0])
        where = places(str(name), (Path.cwd(), self.folder))
        sentence = f"expected a {section} file, found no {name!r} in {where}. {SECTION_FILES[section].remedy}"
        raise ConfigError(self.document.problem(path, sentence))


def assembled(document: Document, settings: Sequence[str], folder: Path) -> Assembly:
    """The document after the settings `a.b=c`, applied in order, with the files of its sections inlined.

    A setting below a section that is a file (`search.evaluations=100`) overrides the file's value; one of the section
    itself (`search=FILE`) names another file. Files are looked up in the current directory, then in `folder`, then
    among the files that come with autoprune.
    """
    whole = Assembly(document, folder, [], {}, [])
    for setting in settings:
        section, *below = (word.strip() for word in setting.partition("=")[0].split("."))
        if section in SECTION_FILES and below:
            whole.inline(section)
        whole.document, wrong = override(whole.document, [setting])
        whole.problems += wrong
    whole.problems += blanks(whole.document)
    for section in SECTION_FILES:
        whole.inline(section)
    return whole


def _merged(document: Document, section: str, file: Document, own: Mapping[str, Any]) -> Document:
    """The document with the file's content as a section, overridden by the section's own keys."""
    places: dict[KeyPath, str] = {
        (section, *path): place for path, place in file.places.items() if not path or path[0] not in own
    }
    merged = replace(document, places={**document.places, **places})
    return _replaced(merged, section, {**file.data, **own})


def _replaced(document: Document, section: str, content: dict[str, Any] | None) -> Document:
    return replace(document, data={**document.data, section: content})


def _short(path: Path) -> Path:
    """The path relative to the current directory if that is shorter, for messages."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else Path(relative)
