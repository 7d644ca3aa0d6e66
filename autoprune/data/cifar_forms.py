"""The forms of CIFAR-10 on disk, recognised by their files: each a function from a root to two splits, or None."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from autoprune.data.images import image_size, read_image
from autoprune.data.numeric import archive_splits, file_split, load_array
from autoprune.data.pickles import read_python_batch
from autoprune.data.splits import Split, check_labels, folder_splits
from autoprune.errors import DataError

SIDE = 32
CLASSES = 10

Splits = tuple[Split, Split]  # training and test


def _python_batches(root: Path) -> Splits | None:
    folder = next((f for f in (root, root / "cifar-10-batches-py") if (f / "data_batch_1").is_file()), None)
    if folder is None:
        return None
    _require(folder / "test_batch")
    return _python_split(_numbered(folder, "data_batch_*")), _python_split([folder / "test_batch"])


def _python_split(paths: Sequence[Path]) -> Split:
    images, labels = _read_python(paths)
    where = f"{paths[0].parent}, {' '.join(path.name for path in paths)}"
    return Split(where, check_labels(labels, where, len(images), CLASSES), partial(_python_images, paths))


def _python_images(paths: Sequence[Path]) -> np.ndarray:
    return _read_python(paths)[0]


def _read_python(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    parts = [read_python_batch(path) for path in paths]
    return np.concatenate([images for images, _ in parts]), np.array([y for _, labels in parts for y in labels])


def _image_folders(root: Path) -> Splits | None:
    if not (root / "train").is_dir():
        return None
    _require(root / "test")
    train, test = folder_splits(root / "train", root / "test", _read_small)
    check_labels(train.labels, train.where, len(train.labels), CLASSES)
    return train, test


def _read_small(path: Path) -> np.ndarray:
    image = read_image(path)
    if image.shape != (SIDE, SIDE, 3):
        raise DataError(f"{path}: expected {SIDE} x {SIDE} pixels, got {image.shape[1]} x {image.shape[0]}")
    return image


def _arrays(root: Path) -> Splits | None:
    archives = [root] if root.suffix == ".npz" else sorted(root.glob("*.npz"))
    if len(archives) == 1:
        train, test = archive_splits(archives[0], CLASSES)
    elif (root / "train_images.npy").is_file():
        _require(*(root / f"{name}.npy" for name in ("train_labels", "test_images", "test_labels")))
        train, test = (
            file_split(root / f"{name}_images.npy", root / f"{name}_labels.npy", CLASSES) for name in ("train", "test")
        )
    else:
        return None
    return _channels_last(train), _channels_last(test)


def _channels_last(split: Split) -> Split:
    return Split(split.where, split.labels, partial(_to_channels_last, split))


def _to_channels_last(split: Split) -> np.ndarray:
    """A (n, 32, 32, 3) uint8 view, so that a memory map is not read."""
    images = np.asanyarray(split.open())
    if images.dtype == np.uint8 and images.shape[1:] == (3, SIDE, SIDE):
        return images.transpose(0, 2, 3, 1)
    if images.dtype != np.uint8 or images.shape[1:] != (SIDE, SIDE, 3):
        raise DataError(
            f"{split.where}: expected images as uint8 of shape (n, {SIDE}, {SIDE}, 3) or (n, 3, {SIDE}, {SIDE}), "
            f"got {images.dtype} {images.shape}"
        )
    return images


def _mosaics(root: Path) -> Splits | None:
    if not (root / "train_labels.npy").is_file() or not _mosaic_files(root, "train"):
        return None
    _require(root / "test_labels.npy")
    return _mosaic_split(root, "train"), _mosaic_split(root, "test")


def _mosaic_files(root: Path, name: str) -> list[Path]:
    return [path for kind in ("webp", "png") for path in _numbered(root, f"{name}*.{kind}")]


def _mosaic_split(root: Path, name: str) -> Split:
    files = _mosaic_files(root, name)
    if not files:
        raise DataError(f"{root}: expected mosaics {name}*.webp or {name}*.png beside {name}_labels.npy, got none")
    tiles = sum(_tile_count(path) for path in files)
    labels = root / f"{name}_labels.npy"
    return Split(
        f"{root}, {name}", check_labels(load_array(labels), str(labels), tiles, CLASSES), partial(_tiles, files)
    )


def _tile_count(path: Path) -> int:
    width, height = image_size(path)
    if width % SIDE or height % SIDE:
        raise DataError(f"{path}: expected a mosaic of {SIDE} x {SIDE} tiles, got {width} x {height} pixels")
    return (width // SIDE) * (height // SIDE)


def _tiles(paths: Sequence[Path]) -> np.ndarray:
    """(n, 32, 32, 3) tiles, row by row; every file is decoded, since a random choice of tiles touches all of them."""
    parts = []
    for path in paths:
        mosaic = read_image(path)
        rows, columns = mosaic.shape[0] // SIDE, mosaic.shape[1] // SIDE
        parts.append(mosaic.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3))
    return np.concatenate(parts)


def _numbered(folder: Path, pattern: str) -> list[Path]:
    """Matching files by the numbers in their names, so that part 10 follows part 9."""
    return sorted(folder.glob(pattern), key=lambda path: ([int(n) for n in re.findall(r"\d+", path.name)], path.name))


def _require(*paths: Path) -> None:
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise DataError(f"{paths[0].parent}: expected {', '.join(missing)} beside the training files, got none")


FORMS: Mapping[str, Callable[[Path], Splits | None]] = {
    "python batches": _python_batches,
    "image folders": _image_folders,
    "arrays": _arrays,
    "mosaics": _mosaics,
}
