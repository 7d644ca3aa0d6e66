"""Mimicking: a network with fewer channels learns the dense network's features without labels."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.prune.modules.copying import model_digest
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.surgery import cut
from autoprune.train.recovery.mimicking import Mimicking


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.b, self.out = nn.Conv2d(8, 6, 3, padding=1), nn.Linear(6, 3)

    def features(self, x):
        return self.b(F.relu(self.norm(self.a(x))))

    def forward(self, x):
        return self.out(F.relu(self.features(x)).mean((2, 3)))


def images(seed, count=64):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def error(network, dense):
    with torch.no_grad():
        return F.mse_loss(F.relu(network.features(images(9))), F.relu(dense.features(images(9)))).item()


def test_features_of_other_images_come_nearer_without_labels():
    dense = Network().eval()
    dense.a.weight.data[4:], dense.a.bias.data[4:] = dense.a.weight.data[:4], dense.a.bias.data[:4]  # nothing is lost
    small = cut(dense, trace(dense, (images(0),)), {"a": np.arange(4)})
    before, digests = error(small, dense), (model_digest(dense), model_digest(small))
    plan = Mimicking.of([(images(1),), (images(2),)], steps=120)
    assert plan.options.augment == "flip_crop"
    found = plan.mimicked(small, dense, {})
    assert not found.training
    assert error(found, dense) < 0.7 * before
    assert (model_digest(dense), model_digest(small)) == digests


def test_only_images_are_flipped_and_cropped():
    for inputs in (torch.randn(8, 5), torch.randn(8, 4, 6, 6), torch.zeros(8, 3, 6, 6, dtype=torch.int64)):
        assert Mimicking.of([(inputs,)]).options.augment == "none"
