"""Columns of data sets of the package `datasets` on disk, as `save_to_disk` writes them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoprune.errors import DataError, did_you_mean

FILES = ("dataset_info.json", "dataset_dict.json")


def is_dataset(path: Path) -> bool:
    """Whether a folder is a data set, or several splits, of the package `datasets`."""
    return any((path / name).is_file() for name in FILES)


def read_columns(path: Path, names: Sequence[str], split: str | None = None) -> list[list[Any]]:
    """The values of the named columns.

    Raises:
        DataError: the package is not installed, the data set cannot be read, or there is no such split or column.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError as error:
        raise DataError(
            f"{path}: expected the package datasets, which reads such a folder, to be installed, got none. Run: "
            "pip install 'autoprune[llm]'"
        ) from error
    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected a data set that datasets.load_from_disk can read: {error}") from error
    table = _split(loaded, split, path)
    for name in names:
        if name not in table.column_names:
            raise DataError(
                f"{path}: expected a column {name!r}{did_you_mean(name, table.column_names)}, got "
                f"{', '.join(table.column_names)}"
            )
    return [list(table[name]) for name in names]


def _split(loaded: Any, split: str | None, path: Path) -> Any:
    splits = list(loaded) if isinstance(loaded, dict) else []
    if split is None and not splits:
        return loaded
    if split not in splits:
        got = f"split {split!r} of the splits {', '.join(splits)}" if splits else f"split {split!r} of a single one"
        raise DataError(f"{path}: expected the name of one of its splits, got {got}. Set split.")
    return loaded[split]
