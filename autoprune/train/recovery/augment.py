"""Random changes of training images, drawn from torch's global generator, which a training seeds for every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from autoprune.errors import ConfigError
from autoprune.measure.batch import Batch

Augment = Callable[[Batch], Batch]

PADDING = 4  # pixels on each side that a crop may move an image by


@dataclass(frozen=True, eq=False)
class FlipCrop:
    """Flips every second image at random and moves each by up to `padding` pixels in both directions.

    What enters at the edges is black: an image of zeros after normalisation, the least value of each channel.

    Attributes:
        black: (c,) the value of black in each channel.
        padding: the most pixels that an image is moved by.
    """

    black: torch.Tensor
    padding: int = PADDING

    def __call__(self, batch: Batch) -> Batch:
        """Returns the batch with other images."""
        images = batch.inputs[0]
        return batch._replace(inputs=(self._cropped(self._flipped(images)), *batch.inputs[1:]))

    def _flipped(self, images: torch.Tensor) -> torch.Tensor:
        chosen = torch.rand(len(images)) < 0.5
        return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(3), images)

    def _cropped(self, images: torch.Tensor) -> torch.Tensor:
        count, _, height, width = images.shape
        black = self.black.to(images)[:, None, None]
        padded = functional.pad(images - black, (self.padding,) * 4) + black
        moved = torch.randint(2 * self.padding + 1, (2, count))
        rows, columns = (
            (start[:, None] + torch.arange(length)).to(images.device)
            for start, length in zip(moved, (height, width), strict=True)
        )
        picked = padded.permute(0, 2, 3, 1)[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return picked.permute(0, 3, 1, 2)


def flip_crop(batch: Batch, least: Callable[[], torch.Tensor]) -> FlipCrop:
    """The augmentation of images such as those of a batch; `least` gives the least value of each channel.

    Raises:
        ConfigError: the first input is no batch of images.
    """
    images = batch.inputs[0]
    if images.dim() != 4 or not images.is_floating_point():
        raise ConfigError(
            "augment: expected images, (b, channels, height, width) numbers, for flip_crop, got a first input of shape "
            f"{tuple(images.shape)} and type {str(images.dtype).removeprefix('torch.')}. Take none, or a function of "
            "(batch) that returns a batch."
        )
    return FlipCrop(least())
