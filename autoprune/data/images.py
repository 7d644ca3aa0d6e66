"""Image files to arrays. The only place that imports Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from autoprune.errors import DataError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm")


@dataclass(frozen=True)
class Normalise:
    """Maps (b, h, w, c) or (b, h, w) uint8 to (b, c, h, w) float32: over 255, minus the mean, over the deviation."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: np.ndarray) -> torch.Tensor:
        raw = np.array(images)  # a copy: memory-mapped files are read-only
        pixels = torch.from_numpy(raw[..., None] if raw.ndim == 3 else raw)
        scaled = (pixels.float() / 255 - torch.tensor(self.mean)) / torch.tensor(self.std)
        return scaled.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class CentreCrop:
    """Makes any image a square: its shorter side is resized to `resize`, then the `size` x `size` centre is cut out."""

    size: int
    resize: int


def read_image(path: Path, frame: CentreCrop | None = None) -> np.ndarray:
    """(h, w, 3) uint8 RGB of one file, resized bilinearly with a `frame`; DataError if it cannot be read."""
    pillow = _pillow()
    try:
        with pillow.open(path) as file:
            picture = file.convert("RGB")
    except (OSError, pillow.DecompressionBombError) as error:
        raise DataError(f"{path}: expected an image, got a file that cannot be read ({error})") from error
    if frame is None:
        return np.asarray(picture)
    shorter = min(picture.size)
    width, height = (int(side * frame.resize / shorter) for side in picture.size)
    picture = picture.resize((width, height), pillow.Resampling.BILINEAR)
    left, top = round((width - frame.size) / 2), round((height - frame.size) / 2)
    return np.asarray(picture.crop((left, top, left + frame.size, top + frame.size)))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height, read from the file's header alone."""
    pillow = _pillow()
    try:
        with pillow.open(path) as file:
            width, height = file.size
    except (OSError, pillow.DecompressionBombError) as error:
        raise DataError(f"{path}: expected an image, got a file that cannot be read ({error})") from error
    return int(width), int(height)


def _pillow() -> ModuleType:
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(
            "expected Pillow, which reads image files, to be installed, got none. Run: pip install 'autoprune[images]'"
        ) from error
    return Image
