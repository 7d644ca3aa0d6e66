"""Job, search and space files that come with autoprune, by the paths they have in its repository.

The wheel contains the repository's folders `configs` and `search_spaces`, so that `autoprune search
configs/quickstart.yaml` works wherever autoprune is installed. A user's own file of the same path has precedence.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

FOLDERS = ("configs", "search_spaces")


def shipped_root() -> Path:
    """The folder that holds both folders: `_shipped` of an installed package, or else the root of the checkout."""
    package = Path(__file__).parents[1]
    installed = package / "_shipped"
    return installed if installed.is_dir() else package.parent


def shipped_file(name: str | Path) -> Path | None:
    """The shipped file at a relative path such as configs/quickstart.yaml; None if there is none."""
    path = shipped_root() / name
    return path if _may_be_shipped(name) and path.is_file() else None


def taken(name: str | Path, path: Path) -> str:
    """The line that says that a shipped file was taken."""
    return f"{name}: taken from the files that come with autoprune, {path}"


def places(name: str | Path, folders: Iterable[Path]) -> str:
    """The folders that were searched for a path, as the end of "found no file in ..."."""
    searched = [*folders, *([shipped_root()] if _may_be_shipped(name) else [])]
    return " or ".join(dict.fromkeys(map(str, searched)))


def _may_be_shipped(name: str | Path) -> bool:
    parts = Path(name).parts
    return len(parts) > 1 and parts[0] in FOLDERS and ".." not in parts
