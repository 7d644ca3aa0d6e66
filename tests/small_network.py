"""A convolution with batch norm, another and a linear layer, with dropout; a space of its two units."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.core.space import Candidate, SearchSpace


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.bn = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.drop, self.out = nn.Conv2d(8, 6, 3, padding=1), nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x):
        y = F.relu(self.b(F.relu(self.bn(self.a(x)))))
        return self.out(self.drop(y.mean((2, 3))))


SPACE = SearchSpace(("a", "b"), ((8, 4, 2), (6, 3)))
A, B = Candidate((1, 1)), Candidate((2, 0))


@pytest.fixture(autouse=True)
def same_weights():
    """Layers draw their weights from the global generator: the same ones for a test whichever ran before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # torch.manual_seed takes a traceback each time
        yield
