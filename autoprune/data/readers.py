"""Readers for the data sets of any network: image folders and .npz archives."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from autoprune.data.convert import to_tensor
from autoprune.data.images import CentreCrop, Normalise, read_image
from autoprune.data.numeric import archive_splits
from autoprune.data.plan import SplitPlan, make_data
from autoprune.data.sets import Data
from autoprune.data.splits import folder_splits
from autoprune.errors import DataError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def image_folder(
    root: str | Path,
    size: int = 224,
    resize: int | None = None,
    calibrate: int = 500,
    select: int = 2000,
    report: int | None = 5000,
    batch_size: int = 50,
    seed: int = 0,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Data:
    """Images as `root/train/<class>/<image>` and `root/val/...` (or `test`), classes in the order of their names.

    Each image is resized bilinearly, cropped to its centre, and becomes RGB / 255, minus `mean`, over `std`. calibrate
    and select come from train, report from test, or from val if there is no test. The sets are held in memory: 12 *
    size**2 bytes an image, 0.6 MB at 224.

    Args:
        root: the folder.
        size: the side of the inputs, in pixels.
        resize: the shorter side before the crop, in pixels; None for size / 0.875, so 256 for 224.
        calibrate: the number of calibration images.
        select: the number of selection images.
        report: the largest number of report images; None for all.
        batch_size: images per batch.
        seed: decides which image belongs to which set.
        mean: means of R, G and B.
        std: standard deviations of R, G and B.

    Returns:
        The sets of a search.

    Raises:
        DataError: folders or images are missing or malformed.
    """
    folder = Path(root).expanduser()
    shown = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if shown is None or not (folder / "train").is_dir():
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no folder"
        raise DataError(f"{folder}: expected the folders train and val (or test), got {found}")
    decode = partial(read_image, frame=_frame(size, resize))
    train, test = folder_splits(folder / "train", shown, decode)
    taken = None if report is None or report >= len(test.labels) else report
    plan = SplitPlan(calibrate, select, taken, batch_size, seed)
    description = {"reader": "image_folder", "size": size, "resize": resize, "mean": list(mean), "std": list(std)}
    return make_data(train, test, plan, Normalise(mean, std), description)


def _frame(size: int, resize: int | None) -> CentreCrop:
    frame = CentreCrop(size, round(size / 0.875) if resize is None else resize)
    if not 1 <= frame.size <= frame.resize:
        raise DataError(f"expected 1 <= size <= resize, got size {frame.size} and resize {frame.resize}")
    return frame


def arrays(
    path: str | Path,
    calibrate: int = 500,
    select: int = 2000,
    report: int | None = None,
    batch_size: int = 100,
    seed: int = 0,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Data:
    """An .npz archive with x_train, y_train, x_test, y_test: calibrate and select from train, report from test.

    Without `mean` and `std` the arrays are the network's inputs, one example per row. With them they are (n, h, w, c)
    or (n, h, w) images of 0..255, which become (n, c, h, w): over 255, minus the mean, over the deviation.

    Args:
        path: the archive.
        calibrate: the number of calibration examples.
        select: the number of selection examples.
        report: the number of report examples; None for all.
        batch_size: examples per batch.
        seed: decides which example belongs to which set.
        mean: means of the channels.
        std: standard deviations of the channels.

    Returns:
        The sets of a search.

    Raises:
        DataError: the archive is malformed, or only one of `mean` and `std` is given.
    """
    if (mean is None) != (std is None):
        raise DataError(f"expected both mean and std, or neither, got mean {mean} and std {std}")
    train, test = archive_splits(Path(path).expanduser())
    prepare = _as_is if mean is None or std is None else Normalise(tuple(mean), tuple(std))
    description = {"reader": "arrays", "mean": mean and list(mean), "std": std and list(std)}
    return make_data(train, test, SplitPlan(calibrate, select, report, batch_size, seed), prepare, description)


def _as_is(inputs: np.ndarray) -> torch.Tensor:
    return to_tensor(inputs, "inputs")
