"""Readers for data sets of any network: image folders and .npz archives."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from autoprune.data.convert import to_tensor
from autoprune.data.images import Frame, Normalise, read_image
from autoprune.data.numeric import archive_splits
from autoprune.data.plan import Plan, make_data
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

    Each image has its shorter side resized to `resize` (size / 0.875 unless given, so 256 for 224), bilinear, is cut
    to its centre of `size` x `size`, and becomes RGB / 255, minus `mean`, over `std`. calibrate and select come from
    train, report from test, or from val where there is no test; `report` None takes all of it, a count at most that
    many. The sets are held in memory: 12 * size**2 bytes an image, 0.6 MB at 224.
    """
    folder = Path(root).expanduser()
    shown = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    if shown is None or not (folder / "train").is_dir():
        found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else "no folder"
        raise DataError(f"{folder}: expected the folders train and val (or test), got {found}")
    decode = partial(read_image, frame=_frame(size, resize))
    train, test = folder_splits(folder / "train", shown, decode)
    taken = None if report is None or report >= len(test.labels) else report
    plan = Plan(calibrate, select, taken, batch_size, seed)
    description = {"reader": "image_folder", "size": size, "resize": resize, "mean": list(mean), "std": list(std)}
    return make_data(train, test, plan, Normalise(mean, std), description)


def _frame(size: int, resize: int | None) -> Frame:
    frame = Frame(size, round(size / 0.875) if resize is None else resize)
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

    Without `mean` and `std` the inputs are what the network takes, one row an example. With them they are
    (n, h, w, c) or (n, h, w) images of 0..255, which become (n, c, h, w): over 255, minus the mean, over the deviation.
    """
    if (mean is None) != (std is None):
        raise DataError(f"expected both mean and std, or neither, got mean {mean} and std {std}")
    train, test = archive_splits(Path(path).expanduser())
    prepare = _as_is if mean is None or std is None else Normalise(tuple(mean), tuple(std))
    description = {"reader": "arrays", "mean": mean and list(mean), "std": std and list(std)}
    return make_data(train, test, Plan(calibrate, select, report, batch_size, seed), prepare, description)


def _as_is(inputs: np.ndarray) -> torch.Tensor:
    return to_tensor(inputs, "inputs")
