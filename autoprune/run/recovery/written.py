"""The recovered networks of a run folder. Reading and printing them needs no model, no data and no torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from autoprune.errors import ConfigError, RunDamaged
from autoprune.run.records.documents import read_checked, understanding
from autoprune.run.records.folder import RunFolder
from autoprune.run.results.front_file import read_front_file
from autoprune.run.results.member import Member

RESULT, NETWORK = "recovered.json", "network"  # the row of a recovered network, and the folder of its export
LONGEST_NAME = 60

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def folder_name(member: Member, name: str | None) -> str:
    """The name of the folder of a recovery: as given, else that of the network, a long one shortened by its checksum.

    Raises:
        ConfigError: the name is no plain name of a folder.
    """
    if name is None:
        label = member.candidate
        digest = hashlib.sha256(label.encode()).hexdigest()[:8]
        return label if len(label) <= LONGEST_NAME else f"{label[:40]}-{digest}"
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise ConfigError(
            f"expected a name of a recovery with at most {LONGEST_NAME} letters, digits, dots, dashes and underscores, "
            f"got {name!r}"
        )
    return name


def read_recovered(path: Path) -> list[Member]:
    """The recovered networks of a run, by name. RunDamaged if a file was changed."""
    folder = RunFolder.open(path)
    results = sorted(folder.recovered.glob(f"*/{RESULT}"))
    return [read_result(folder, result.parent.name) for result in results]


def read_result(folder: RunFolder, name: str) -> Member:
    """The recovered network of a name, which must be there."""
    path = folder.recovered / name / RESULT
    try:
        document = read_checked(path)
        with understanding(path):
            return Member.from_json(document, read_front_file(folder).dense)
    except RunDamaged as error:
        raise RunDamaged(f"{path} cannot be read. Remove its folder and recover the network again.") from error


def check_same(place: Path, known: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raises ConfigError, with all differences, if a recovery was started with other options than those asked for."""
    flat = [
        {**facts["options"], "candidate": facts["candidate"], "examples": facts["examples"]} for facts in (known, asked)
    ]
    before, now = flat
    others = [f"{key} was {before.get(key)!r}, not {now.get(key)!r}" for key in now if before.get(key) != now.get(key)]
    if others:
        raise ConfigError(
            f"expected the options that {place} was started with, got others: {'; '.join(others)}. Take those to go "
            "on, or give this recovery another name (--name)."
        )
