"""The data set that ships with scikit-learn: 1,797 handwritten digits, so that a first run needs no download."""

from __future__ import annotations

import numpy as np
import torch

from autoprune.data.convert import check_whole
from autoprune.data.sets import Data
from autoprune.errors import DataError

TRAIN, CALIBRATE, SELECT, REPORT = 797, 200, 400, 400
MEAN, STD = 0.3053, 0.3760  # over all pixels, scaled to [0, 1]


def digits(seed: int = 0, batch_size: int = 100) -> Data:
    """The digits of scikit-learn (8 x 8 pixels, 10 classes) as 200 calibrate, 400 select and 400 report examples.

    Inputs are (b, 1, 8, 8) float32, scaled to [0, 1], minus 0.3053, over 0.3760. The 797 training examples are the same
    for every seed, so that a network trained on them has never seen the other sets.

    Args:
        seed: shuffles the remaining 1,000 examples over the sets.
        batch_size: examples per batch.

    Returns:
        The sets of a search.

    Raises:
        DataError: scikit-learn is not installed.
    """
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    images, labels = _load()
    order = _order()
    rest = np.random.default_rng(seed).permutation(order[TRAIN:])
    calibrate, select, report = np.split(rest, [CALIBRATE, CALIBRATE + SELECT])
    indices = {"calibrate": calibrate.tolist(), "select": select.tolist(), "report": report.tolist()}
    return Data.from_arrays(
        (images[calibrate],),
        (images[select], labels[select]),
        (images[report], labels[report]),
        train=(images[order[:TRAIN]], labels[order[:TRAIN]]),
        batch_size=batch_size,
        description={"reader": "digits", "seed": seed, "indices": indices},
    )


def digits_train() -> tuple[torch.Tensor, torch.Tensor]:
    """(797, 1, 8, 8) inputs and (797,) labels of the training set, disjoint from the other sets for any seed."""
    images, labels = _load()
    rows = _order()[:TRAIN]
    return torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])


def _order() -> np.ndarray:
    return np.random.default_rng(0).permutation(TRAIN + CALIBRATE + SELECT + REPORT)


def _load() -> tuple[np.ndarray, np.ndarray]:
    """(1797, 1, 8, 8) float32 and (1797,) int64, in scikit-learn's order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "expected scikit-learn, which ships the digits, to be installed, got none. "
            "Run: pip install 'autoprune[digits]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    scaled = (images.reshape(-1, 1, 8, 8) / 16 - MEAN) / STD
    return scaled.astype(np.float32), labels.astype(np.int64)
