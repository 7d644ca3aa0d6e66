"""EagleEye: the best of random widths by the accuracy after adaptive batch norm.

Li, Wu, Su, Wang 2020, https://arxiv.org/abs/2007.02491, section 3, with the settings of the published code: ratios
drawn uniformly and independently, kept when the MACs are within 0.005 of the target; the filters of least L1 norm go,
their number rounded down; batch norms adapt over 102 batches of 128 training images with random crops and flips, the
whole network in train mode, momentum 0.1, dense statistics as the start; the score is top-1 accuracy on training
images. We depart from it in three ways: the selection images are read without augmentation; they are not among those
that batch norms adapt on; and the MACs of a draw come from its cost polynomial before anything is built, which spares
EagleEye the time for the draws it rejects.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from autoprune.data.cifar import NORMALISE
from autoprune.prune.shrink import shrink
from compensation.setting import Pruned, Setting, accuracy

TOLERANCE = 0.005
BATCHES, BATCH_SIZE = 102, 128
PADDING = 4
RANGE, ABOVE = 0.7, 0.2  # width of the interval of ratios, and how far it reaches above the ratio that is needed
DRAWN = 10_000  # at once


def prune(setting: Setting, target: float, candidates: int) -> Pruned:
    """The best of so many random networks within 0.005 of the target, with the batch norms it was scored with."""
    widths = draw(setting, target, candidates, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    images = training_images(setting)
    best, highest = setting.model, -1.0
    for row in widths:
        network = thinned(setting, row)
        adapt(network, images, generator)
        score = accuracy(network, setting.data.select)
        if score > highest:
            best, highest = network, score
    return Pruned(best, f"EagleEye, best of {candidates}")


def draw(setting: Setting, target: float, candidates: int, rng: np.random.Generator) -> np.ndarray:
    """(candidates, u) kept counts of the u inner units, MACs within the tolerance of the target.

    The published code takes the interval of ratios by hand for each network and target, [0, 0.7] for half of the MACs
    of ResNet-50. We shift this one with the target: [0, 0.5] for 70 %, [0.15, 0.85] for 35 %, [0.25, 0.95] for 25 %. On
    ResNet-20 at half it gave better candidates than [0, 1], and no worse ones than narrower intervals.
    """
    structure = setting.structure
    full = np.array([structure.unit(name).width for name in setting.inner])
    dense = structure.cost.dense()["macs"]
    top = min(1 - target + ABOVE, 1.0)
    found = np.empty((0, len(full)), dtype=np.int64)
    while len(found) < candidates:
        ratios = rng.uniform(max(top - RANGE, 0.0), top, (DRAWN, len(full)))
        kept = np.maximum(full - np.floor(ratios * full).astype(np.int64), 1)
        shares = structure.cost.evaluate(setting.inner, kept)["macs"] / dense
        found = np.concatenate([found, kept[np.abs(shares - target) <= TOLERANCE]])
    return found[:candidates]


def thinned(setting: Setting, kept: np.ndarray) -> nn.Module:
    """The network with the filters of largest L1 norm, so many in each inner unit."""
    weights = dict(setting.model.named_parameters())
    norms = [weights[f"{name}.weight"].detach().abs().sum((1, 2, 3)) for name in setting.inner]
    largest = [torch.topk(norm, int(count)).indices.tolist() for norm, count in zip(norms, kept, strict=True)]
    return shrink(setting.model, setting.structure, dict(zip(setting.inner, largest, strict=True)))


@torch.no_grad()
def adapt(network: nn.Module, images: torch.Tensor, generator: torch.Generator) -> None:
    network.train()
    rows = torch.randperm(len(images), generator=generator)[: BATCHES * BATCH_SIZE]
    for batch in rows.split(BATCH_SIZE):
        network(augmented(images[batch], generator))
    network.eval()


def training_images(setting: Setting) -> torch.Tensor:
    """(n, 3, 32, 32) uint8: the training images that no other set holds."""
    assert setting.data.train is not None
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (NORMALISE.mean, NORMALISE.std))
    parts = [((batch.inputs[0] * std + mean) * 255).round().byte() for batch in setting.data.train]
    return torch.cat(parts)


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Crops at random places of the images with a black frame, half of them mirrored, normalised, channels-last."""
    count, _, height, width = images.shape
    padded = F.pad(images, (PADDING,) * 4)
    down, right = torch.randint(0, 2 * PADDING + 1, (2, count, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    crops = padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (b, h, w, c)
    mean, std = torch.tensor(NORMALISE.mean), torch.tensor(NORMALISE.std)
    return ((crops / 255 - mean) / std).permute(0, 3, 1, 2)
