"""Five corruptions of images in three severities, and dropped tokens of texts, in the scale of the data themselves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from autoprune.errors import DataError
from autoprune.measure.batch import Batch
from autoprune.prune.devices.precision import precise_dtype

SEVERITIES = (1, 2, 3)
IMAGES = ("noise", "blur", "contrast", "brightness", "pixelate")
TEXTS = ("token_drop",)
SIDE = 32  # pixels of the shorter side for which blurs are given in pixels; they grow with larger images

# the strength at severity 0, which changes nothing, and at severities 1 to 3
STRENGTHS = {
    "noise": (0.0, 0.15, 0.3, 0.45),  # standard deviation, in deviations of the channel over the data
    "blur": (0.0, 0.4, 0.7, 1.0),  # standard deviation of the Gaussian, in pixels of an image of SIDE pixels
    "contrast": (1.0, 0.75, 0.5, 0.3),  # factor of the difference from the mean of the image's channel
    "brightness": (0.0, 0.3, 0.6, 1.0),  # shift, in deviations of the channel; values stay in the range of the data
    "pixelate": (1.0, 0.9, 0.75, 0.6),  # share of the image's side that is left in pixels
    "token_drop": (0.0, 0.05, 0.1, 0.2),  # share of the tokens
}


@dataclass(frozen=True)
class Scale:
    """The deviation, the least and the largest value of each channel over all images, as (1, c, 1, 1) tensors."""

    deviation: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    @staticmethod
    def of(images: Sequence[torch.Tensor]) -> Scale:
        count = sum(x.numel() // x.shape[1] for x in images)
        dtype = precise_dtype(images[0].device)
        mean = torch.stack([x.to(dtype).sum(dim=(0, 2, 3)) for x in images]).sum(dim=0) / count
        about = [(x.to(dtype) - mean[:, None, None]).square().sum(dim=(0, 2, 3)) for x in images]
        deviation = (torch.stack(about).sum(dim=0) / count).sqrt()
        low = torch.stack([x.amin(dim=(0, 2, 3)) for x in images]).amin(dim=0)
        high = torch.stack([x.amax(dim=(0, 2, 3)) for x in images]).amax(dim=0)
        deviation, low, high = (x.to(images[0].dtype)[None, :, None, None] for x in (deviation, low, high))
        return Scale(deviation, low, high)


def corruptions_of(batches: Sequence[Batch]) -> tuple[str, ...]:
    """The corruptions that apply to the first input of the batches.

    Raises:
        DataError: the inputs are neither images nor tokens.
    """
    x = batches[0].inputs[0]
    if x.is_floating_point() and x.dim() == 4:
        return IMAGES
    if not x.is_floating_point() and x.dim() == 2:
        return TEXTS
    raise DataError(
        "expected images (b, channels, height, width) or tokens (b, tokens) to corrupt, got inputs of "
        f"{tuple(x.shape)}. Leave corrupted inputs out for other data."
    )


def corrupted(batches: Sequence[Batch], corruption: str, severity: int, seed: int = 0) -> Iterator[Batch]:
    """The batches with corrupted inputs and no dense outputs.

    Every example gets its own random numbers, which depend on its place among all examples alone: neither on the sizes
    of batches nor on the device. At severity 0 all bits stay.
    """
    strength = STRENGTHS[corruption][severity]
    if corruption in TEXTS:
        yield from _on_texts(batches, strength, seed)
        return
    scale = Scale.of([batch.inputs[0] for batch in batches])
    start = 0
    for batch in batches:
        x = batch.inputs[0]
        if corruption == "noise":
            changed = _noise(x, strength, scale, seed, start)
        else:
            changed = PURE[corruption](x, strength, scale)
        layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
        yield batch._replace(inputs=(changed.contiguous(memory_format=layout), *batch.inputs[1:]), dense=None)
        start += batch.examples


def _noise(x: torch.Tensor, strength: float, scale: Scale, seed: int, start: int) -> torch.Tensor:
    """Adds Gaussian noise."""
    drawn = [_generator(seed, start + i) for i in range(len(x))]
    noise = torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in drawn])
    return x + strength * scale.deviation * noise.to(x)


def _blur(x: torch.Tensor, strength: float, scale: Scale) -> torch.Tensor:
    """Convolves with a Gaussian, along rows and columns, with values at the border repeated."""
    deviation = strength * max(1.0, min(x.shape[2:]) / SIDE)
    if deviation == 0:
        return x
    reach = min(math.ceil(3 * deviation), min(x.shape[2:]) - 1)
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = (-0.5 * (offsets / deviation).square()).exp()
    kernel = (kernel / kernel.sum()).to(x)
    planes = x.flatten(0, 1)[:, None]  # (b * c, 1, h, w)
    planes = functional.conv2d(functional.pad(planes, (0, 0, reach, reach), "replicate"), kernel[None, None, :, None])
    planes = functional.conv2d(functional.pad(planes, (reach, reach, 0, 0), "replicate"), kernel[None, None, None])
    return planes.reshape(x.shape)


def _contrast(x: torch.Tensor, strength: float, scale: Scale) -> torch.Tensor:
    """Pulls values towards the mean of the image's channel."""
    return x + (strength - 1) * (x - x.mean(dim=(2, 3), keepdim=True))


def _brightness(x: torch.Tensor, strength: float, scale: Scale) -> torch.Tensor:
    """Shifts values, within the range of the data."""
    return torch.minimum(torch.maximum(x + strength * scale.deviation, scale.low), scale.high)


def _pixelate(x: torch.Tensor, strength: float, scale: Scale) -> torch.Tensor:
    """Averages over fewer, larger pixels."""
    height, width = (max(1, round(side * strength)) for side in x.shape[2:])
    return functional.interpolate(functional.adaptive_avg_pool2d(x, (height, width)), size=x.shape[2:])


PURE: dict[str, Callable[[torch.Tensor, float, Scale], torch.Tensor]] = {
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
}


def _on_texts(batches: Sequence[Batch], strength: float, seed: int) -> Iterator[Batch]:
    """Drops tokens at random, never the first: the attention mask hides them where the second input is one.

    Without a mask a network reads the token before a dropped one again, as the length of the text stays.
    """
    start = 0
    for batch in batches:
        ids, rest = batch.inputs[0], batch.inputs[1:]
        draws = [torch.rand(ids.shape[1], generator=_generator(seed, start + i)) for i in range(len(ids))]
        drop = (torch.stack(draws) < strength).to(ids.device)
        drop[:, 0] = False
        if rest and rest[0].shape == ids.shape:
            inputs = (ids, rest[0].masked_fill(drop, 0), *rest[1:])
        else:
            places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
            inputs = (ids.gather(1, places.masked_fill(drop, 0).cummax(dim=1).values), *rest)
        yield batch._replace(inputs=inputs, dense=None)
        start += batch.examples


def _generator(seed: int, example: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 2_000_003 + example)
