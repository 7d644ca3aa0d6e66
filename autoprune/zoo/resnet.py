"""The ResNets of CIFAR-10, without weights.

He, Zhang, Ren, Sun 2015, https://arxiv.org/abs/1512.03385, section 4.2: 6n + 2 layers, three stages of n blocks with
16, 32 and 64 channels at 32 x 32, 16 x 16 and 8 x 8 pixels, identity shortcuts (option A) where the size changes.
Departure: the paper does not say where the zeros of a widened shortcut go; like common trained weights, we put
half of them on each side of the old channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: identity (option A), or a 1x1 convolution where `projection` (B)."""

    def __init__(self, channels: int, width: int, stride: int, projection: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride = stride
        self.padding = (width - channels) // 2
        changes = stride != 1 or width != channels
        self.projection = _projection(channels, width, stride) if projection and changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self._shortcut(x))

    def _shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if self.projection is not None:
            projected: torch.Tensor = self.projection(x)
            return projected
        if self.stride == 1 and self.padding == 0:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))


def _projection(channels: int, width: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet(nn.Module):
    """Three stages of residual blocks; (b, channels, h, w) images to (b, classes) logits.

    `blocks` and `widths` have one entry per stage; every stage but the first halves the image.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        widths: Sequence[int] = (16, 32, 64),
        *,
        channels: int = 3,
        classes: int = 10,
        projection: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(blocks[0], widths[0], widths[0], 1, projection)
        self.layer2 = _stage(blocks[1], widths[0], widths[1], 2, projection)
        self.layer3 = _stage(blocks[2], widths[1], widths[2], 2, projection)
        self.linear = nn.Linear(widths[2], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        logits: torch.Tensor = self.linear(x)
        return logits


def _stage(blocks: int, channels: int, width: int, stride: int, projection: bool) -> nn.Sequential:
    first = Block(channels, width, stride, projection)
    return nn.Sequential(first, *(Block(width, width, 1, projection) for _ in range(blocks - 1)))


def build(seed: int, make: Callable[[], ResNet]) -> ResNet:
    """The network that `make` constructs, He-initialised from `seed`, in eval mode; global random state is restored."""
    with torch.random.fork_rng(devices=[]):  # constructors of torch draw from the global generator
        network = make()
    _initialise(network, torch.Generator().manual_seed(seed))
    return network.eval()


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """He et al. 2015, https://arxiv.org/abs/1502.01852, equation 10; torch starts batch norm at 1 and 0 by itself."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
