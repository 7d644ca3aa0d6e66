"""Reads CIFAR-10 in any of its common forms on disk."""

from __future__ import annotations

from pathlib import Path

from autoprune.data.cifar_forms import FORMS, Splits
from autoprune.data.images import Normalise
from autoprune.data.plan import SplitPlan, make_data
from autoprune.data.sets import Data
from autoprune.errors import DataError

NORMALISE = Normalise((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def cifar10(
    root: str | Path,
    calibrate: int = 500,
    select: int = 2000,
    report: int | None = None,
    batch_size: int = 100,
    seed: int = 0,
) -> Data:
    """CIFAR-10 (Krizhevsky 2009): calibrate and select from the training images, report from the test images.

    Inputs are (b, 3, 32, 32) float32: RGB / 255, minus (0.485, 0.456, 0.406), over (0.229, 0.224, 0.225). `train`
    streams the remaining training images. The assignment of images to sets is recorded. `root` may hold

    - python batches: data_batch_1, ... and test_batch, also inside cifar-10-batches-py
    - image folders: train/<class>/<image> and test/<class>/<image>, classes numbered in the order of their names
    - arrays: train_images.npy, train_labels.npy, test_images.npy, test_labels.npy, or one .npz (or be that file) with
      x_train, y_train, x_test, y_test; (n, 32, 32, 3) or (n, 3, 32, 32) uint8
    - mosaics: train*.webp or .png and test*, each of 32 x 32 tiles row by row, files in the order of their numbers,
      with train_labels.npy and test_labels.npy

    Args:
        root: the folder, or the .npz file.
        calibrate: the number of calibration images.
        select: the number of selection images.
        report: the number of report images; None for all test images in their order.
        batch_size: images per batch.
        seed: decides which image belongs to which set.

    Returns:
        The sets of a search.

    Raises:
        DataError: the folder has none of these forms (the message lists its content), or a file is malformed.
    """
    form, (train, test) = _find(Path(root).expanduser())
    plan = SplitPlan(calibrate, select, report, batch_size, seed)
    return make_data(train, test, plan, NORMALISE, {"reader": "cifar10", "form": form})


def _find(root: Path) -> tuple[str, Splits]:
    if not root.exists():
        raise DataError(f"{root}: expected a folder with CIFAR-10, got a path that does not exist")
    for form, find in FORMS.items():
        splits = find(root)
        if splits is not None:
            return form, splits
    raise DataError(
        f"{root}: expected CIFAR-10 as python batches (data_batch_1, test_batch), image folders (train/<class>/, "
        "test/<class>/), arrays (train_images.npy, train_labels.npy, ..., or one .npz with x_train, y_train, x_test, "
        f"y_test) or mosaics (train*.webp or .png, train_labels.npy, ...), got {_content(root)}"
    )


def _content(root: Path) -> str:
    if root.is_file():
        return f"the file {root.name}"
    names = sorted(path.name for path in root.iterdir())
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"a folder of {', '.join(names[:8])}{more}" if names else "an empty folder"
