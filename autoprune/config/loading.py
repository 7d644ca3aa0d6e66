"""A job file read, overridden, checked: `load`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoprune.config.calls import Context
from autoprune.config.document import Document, KeyPath, blanks, override, read_document
from autoprune.config.explain import explain
from autoprune.config.spec import JobSpec
from autoprune.errors import ConfigError
from autoprune.plugins import find_path
from autoprune.run.folder import RunFolder


def load(path: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a YAML file after the settings `a.b=c`, with every plug-in imported and held against its arguments.

    Relative files in it are looked for in the current directory, then in the file's folder. Raises one ConfigError
    with all mistakes: of the file, of its space file, of the settings and of the plug-ins.
    """
    path = Path(path)
    document, problems = override(read_document(path), overrides)
    problems += blanks(document)
    document, of_space = _with_space(document, path.parent)
    data = {"name": path.stem.lstrip(".") or "job", **document.data}
    try:
        spec = JobSpec.model_validate(data, context=Context(document, (path.parent.absolute(),)))
    except ValidationError as error:
        raise ConfigError(
            problems + of_space + explain(error, JobSpec, document, ignore=("space",) if of_space else ())
        ) from None
    if problems:
        raise ConfigError(problems)
    return spec


def load_run(folder: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a run folder after the settings. RunNotFound if there is none, ConfigError if it is one of Python."""
    path = RunFolder.open(Path(folder)).job
    if "made_by" in read_document(path).data:
        raise ConfigError(
            f"expected a run that was started from a job file, {folder} was started in Python. Go on with it there: "
            "autoprune.search(the same arguments, resume=True)."
        )
    return load(path, overrides)


def _with_space(document: Document, folder: Path) -> tuple[Document, list[str]]:
    """The document with the space file it names in place of the name, and what is wrong with that file."""
    name = document.data.get("space")
    if not isinstance(name, str):
        return document, []
    found = find_path(name, (folder,))
    if found is None:
        sentence = f"expected a space file, found no {name!r} in {Path.cwd()} or {folder}. Check the path."
        return _replaced(document, None), [document.problem(("space",), sentence)]
    try:
        return _inlined(document, read_document(_short(found))), []
    except ConfigError as error:
        return _replaced(document, None), error.problems


def _inlined(document: Document, space: Document) -> Document:
    places: dict[KeyPath, str] = {("space", *path): place for path, place in space.places.items()}
    return replace(_replaced(document, dict(space.data)), places={**document.places, **places})


def _replaced(document: Document, space: dict[str, Any] | None) -> Document:
    return replace(document, data={**document.data, "space": space})


def _short(path: Path) -> Path:
    """The path as seen from the current directory where that is shorter, for messages."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else Path(relative)
