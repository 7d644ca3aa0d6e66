"""A small network with data, which checks use if they are given none."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autoprune.measure.batch import Batch

CLASSES, BATCH = 3, 8


def small_network() -> nn.Module:
    """Two convolutions with a batch norm and a linear layer; their random weights are the same each time."""
    import torch
    from torch import nn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 4, 3, padding=1)
        head = nn.Linear(4, CLASSES)
        layers = (first, nn.BatchNorm2d(6), nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
        return nn.Sequential(*layers).eval()


def small_batches(count: int = 2) -> list[Batch]:
    """Labelled batches for the small network, with its outputs as `dense`."""
    import torch

    from autoprune.measure.batch import Batch

    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        x = torch.randn(BATCH, 2, 5, 5, generator=generator)
        target = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        with torch.no_grad():
            batches.append(Batch((x,), target, small_network()(x)))
    return batches


def small_example() -> tuple[torch.Tensor, ...]:
    """The inputs of one call of the small network."""
    return tuple(x[:1] for x in small_batches(1)[0].inputs)
