"""Checks of a checkpoint before transformers reads it."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoprune.errors import ConfigError

SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def import_transformers() -> Any:
    """The package. ConfigError if it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ConfigError(
            "expected transformers, which reads the checkpoint, to be installed, got none. Run: "
            "pip install 'autoprune[llm]'"
        ) from error


def check_folder(path: Path) -> None:
    """Checks that a folder has a configuration, and every file that its index of shards names.

    Raises:
        ConfigError: a file is missing or damaged.
    """
    if not (path / "config.json").is_file():
        found = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
        raise ConfigError(f"{path}: expected a checkpoint folder of transformers with config.json, got {found}")
    for index in SHARDS:
        if (path / index).is_file():
            files = sorted(set(read_json(path / index).get("weight_map", {}).values()))
            if missing := [name for name in files if not (path / name).is_file()]:
                raise ConfigError(
                    f"{path}: expected the {len(files)} files that {index} names, got no {', '.join(missing)}. Copy "
                    "the checkpoint again."
                )


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. ConfigError if it cannot be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: expected a readable JSON file: {error}. Copy the checkpoint again.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping, got a {type(content).__name__}. Copy the checkpoint again.")
    return content


def local(path: str | Path) -> Path | None:
    """The folder that a path names; None for the name of a checkpoint on the hub."""
    folder = Path(path).expanduser()
    return folder if folder.is_dir() else None


def _is_path(path: str | Path) -> bool:
    """Whether a text can be no name on the hub, which has at most one slash."""
    return isinstance(path, Path) or path.startswith((".", "~", "/")) or path.count("/") > 1 or Path(path).exists()


@contextmanager
def reading(path: str | Path, what: str, *, download: bool, trust_remote_code: bool) -> Iterator[None]:
    """Turns failures of transformers to read something into a ConfigError.

    Args:
        path: the folder or name of the checkpoint.
        what: what is read, such as "a tokenizer".
        download: whether files may be fetched.
        trust_remote_code: whether the code of the checkpoint may run.
    """
    try:
        yield
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise ConfigError(
                f"{path}: {what} needs Python code of the checkpoint, which runs only if you trust it. Read the .py "
                "files, then set trust_remote_code: true."
            ) from error
        if local(path) is None and _is_path(path):
            raise ConfigError(
                f"{path}: expected the folder of a checkpoint, where there is none. Check the path."
            ) from error
        if local(path) is None and not download:
            raise ConfigError(
                f"{path}: expected {what} in a folder or in the cache of transformers, got neither. Give the path of a "
                f"folder, or set download: true to fetch it. transformers said: {said}"
            ) from error
        raise ConfigError(f"{path}: expected {what} that transformers can read, got an error: {said}") from error
