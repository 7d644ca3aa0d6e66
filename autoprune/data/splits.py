"""Labelled images on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from autoprune.data.images import EXTENSIONS, read_image
from autoprune.errors import DataError

Decode = Callable[[Path], np.ndarray]


class Images(Protocol):
    """Anything that (k,) positions index to give (k, ...) examples: an array, a memory map, a list of files."""

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Split:
    """The n examples of one split: (n,) int64 labels in memory, and images that `open` reads."""

    where: str
    labels: np.ndarray
    open: Callable[[], Images]


@dataclass(frozen=True)
class Files:
    """One image per file, decoded when indexed."""

    paths: tuple[Path, ...]
    decode: Decode

    def __getitem__(self, indices: np.ndarray, /) -> np.ndarray:
        return np.stack([self.decode(self.paths[i]) for i in indices])


def folder_splits(train: Path, test: Path, decode: Decode = read_image) -> tuple[Split, Split]:
    """Two splits as `<split>/<class>/<image>`, classes and images in the order of their names.

    Raises:
        DataError: a split has no images, or the class names differ, so that labels would not agree.
    """
    names, others = ([folder.name for folder in _classes(root)] for root in (train, test))
    if names != others:
        odd = sorted(set(names) ^ set(others))
        raise DataError(f"{test}: expected the {len(names)} class folders of {train.name}, got {odd[:3]} in only one")
    return _folder_split(train, decode), _folder_split(test, decode)


def _classes(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _folder_split(root: Path, decode: Decode) -> Split:
    classes = _classes(root)
    files = [sorted(f for f in folder.iterdir() if f.suffix.lower() in EXTENSIONS) for folder in classes]
    paths = tuple(path for group in files for path in group)
    if not paths:
        raise DataError(f"{root}: expected one folder of image files per class, got {len(classes)} folders, no image")
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(group) for group in files])
    return Split(str(root), labels, partial(Files, paths, decode))


def check_labels(labels: np.ndarray, where: str, examples: int, classes: int | None = None) -> np.ndarray:
    """(n,) int64 labels from (n,) or (n, 1) ones; DataError unless there is one class index per example."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.shape != (examples,) or flat.dtype.kind not in "iu" or not examples:
        raise DataError(
            f"{where}: expected {examples or 'some'} whole numbers, one label per image, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if flat.min() < 0 or (classes is not None and flat.max() >= classes):
        top = "upwards" if classes is None else f"to {classes - 1}"
        raise DataError(f"{where}: expected labels from 0 {top}, got {flat.min()} to {flat.max()}")
    return flat.astype(np.int64)
