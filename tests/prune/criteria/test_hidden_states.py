"""Distances between hidden states, of blocks that turn them by known angles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.prune.criteria.hidden_states import block_distances


class Turn(nn.Module):
    """Turns (examples, tokens, 2) hidden states by a share of a half turn, and scales them."""

    def __init__(self, share, scale=1.0):
        super().__init__()
        angle = torch.tensor(share * torch.pi)
        self.matrix = scale * torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])

    def forward(self, hidden):
        return (hidden @ self.matrix.T, None)


class Blocks(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layers = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.layers:
            x = block(x)[0]
        return x


STATES = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(0))
NAMES = ["layers.0", "layers.1", "layers.2"]


def test_influence_is_one_minus_the_cosine_and_angles_are_shares_of_a_half_turn():
    model = Blocks(Turn(0.5, 3.0), Turn(0.0, 2.0), Turn(0.25))
    found = block_distances(model, NAMES, [(STATES[:4],), (STATES[4:],)])
    np.testing.assert_allclose(found.influence, [1, 0, 1 - 0.5**0.5], atol=1e-6)
    turned = np.array([0, 0.5, 0.5, 0.75])
    np.testing.assert_allclose(found.angles, np.abs(turned[:, None] - turned), atol=2e-3)


def test_a_block_that_runs_twice_is_refused():
    shared = Turn(0.1)
    model = Blocks(shared, Turn(0.2), shared)
    with pytest.raises(ConfigError, match=r"got 2 runs of 'layers.0'"):
        block_distances(model, NAMES[:2], [(STATES,)])
