"""Splits stored as numpy arrays: .npz archives and pairs of .npy files."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.data.splits import Split, check_labels
from autoprune.errors import DataError

MEMBERS = ("x_train", "y_train", "x_test", "y_test")


def load_array(path: Path, member: str | None = None) -> np.ndarray:
    """One .npy file as a read-only memory map, or one member of an .npz; DataError if it cannot be loaded."""
    try:
        if member is None:
            return _array(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as archive:
            return _array(archive[member])
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        where = path if member is None else f"{path}, {member}"
        raise DataError(f"{where}: expected a numpy array without pickled objects, got {error}") from error


def _array(loaded: Any) -> np.ndarray:
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"a {type(loaded).__name__}")
    return loaded


def archive_splits(path: Path, classes: int | None = None) -> tuple[Split, Split]:
    """Training and test split of an .npz with x_train, y_train, x_test and y_test."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in MEMBERS if name not in archive.files]
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected an .npz archive, got a file that cannot be read ({error})") from error
    if missing:
        raise DataError(f"{path}: expected the arrays {', '.join(MEMBERS)}, got no {', '.join(missing)}")
    return _member_split(path, "train", classes), _member_split(path, "test", classes)


def _member_split(path: Path, name: str, classes: int | None) -> Split:
    count = len(np.atleast_1d(load_array(path, f"x_{name}")))
    where = f"{path}, y_{name}"
    labels = check_labels(load_array(path, f"y_{name}"), where, count, classes)
    return Split(where, labels, partial(load_array, path, f"x_{name}"))


def file_split(images: Path, labels: Path, classes: int | None = None) -> Split:
    """A split of one .npy file of images and one of labels."""
    count = len(np.atleast_1d(load_array(images)))
    return Split(
        str(images), check_labels(load_array(labels), str(labels), count, classes), partial(load_array, images)
    )
