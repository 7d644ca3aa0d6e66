"""A detector of the YOLO kind: split blocks, a neck that goes up and down, and a head at three strides."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

WIDTHS, DEPTHS = (16, 32, 64, 128, 256), (1, 2, 2, 1)
CLASSES, BINS = 80, 16  # classes, and values for each side of a box


def convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Split(nn.Module):
    """Half of the channels go through residual blocks; the results of all blocks are concatenated."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, shortcut: bool) -> None:
        super().__init__()
        half, self.shortcut = outputs // 2, shortcut
        self.enter = convolution(inputs, 2 * half)
        pairs = [nn.Sequential(convolution(half, half, 3), convolution(half, half, 3)) for _ in range(blocks)]
        self.blocks = nn.ModuleList(pairs)
        self.leave = convolution((2 + blocks) * half, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.enter(x).chunk(2, dim=1))
        for block in self.blocks:
            y = block(parts[-1])
            parts.append(parts[-1] + y if self.shortcut else y)
        y: torch.Tensor = self.leave(torch.cat(parts, dim=1))
        return y


class Pyramid(nn.Module):
    """Three poolings in a row, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = convolution(channels, channels // 2), convolution(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        y: torch.Tensor = self.leave(torch.cat(parts, dim=1))
        return y


class Detector(nn.Module):
    """Boxes and class scores at strides of 8, 16 and 32; (b, 4 * BINS + CLASSES, places) for (b, 3, h, w) images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = convolution(3, WIDTHS[0], 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(convolution(before, after, 3, 2), Split(after, after, depth, shortcut=True))
            for before, after, depth in zip(WIDTHS, WIDTHS[1:], DEPTHS, strict=False)
        )
        small, middle, large = WIDTHS[2:]
        self.pyramid = Pyramid(large)
        self.up_middle = Split(large + middle, middle, 1, shortcut=False)
        self.up_small = Split(middle + small, small, 1, shortcut=False)
        self.down_middle, self.to_middle = (
            convolution(small, small, 3, 2),
            Split(small + middle, middle, 1, shortcut=False),
        )
        self.down_large, self.to_large = (
            convolution(middle, middle, 3, 2),
            Split(middle + large, large, 1, shortcut=False),
        )
        self.boxes = nn.ModuleList(head(width, 64, 4 * BINS) for width in (small, middle, large))
        self.classes = nn.ModuleList(head(width, CLASSES, CLASSES) for width in (small, middle, large))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        small, middle, large = *features[2:4], self.pyramid(features[4])
        middle = self.up_middle(torch.cat([F.interpolate(large, scale_factor=2.0), middle], dim=1))
        small = self.up_small(torch.cat([F.interpolate(middle, scale_factor=2.0), small], dim=1))
        middle = self.to_middle(torch.cat([self.down_middle(small), middle], dim=1))
        large = self.to_large(torch.cat([self.down_large(middle), large], dim=1))
        scales = zip((small, middle, large), self.boxes, self.classes, strict=True)
        return torch.cat([torch.cat([box(y), kind(y)], dim=1).flatten(2) for y, box, kind in scales], dim=2)


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, hidden, 3), convolution(hidden, hidden, 3), nn.Conv2d(hidden, outputs, 1))
