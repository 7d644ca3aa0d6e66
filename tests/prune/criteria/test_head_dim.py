"""Orders of head dimensions, which see queries, keys and values beside the output projection."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria.ordering import energy_shares
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import consumers_of, measured_weights, moments_bytes, statistics_bytes
from autoprune.prune.moments.moments import collect_moments
from autoprune.prune.structure.trace import trace

HEADS, SIZE, WIDTH = 2, 4, 6
NAMES = ("q", "k", "v")


class Attention(nn.Module):
    """Self-attention with a residual connection."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, HEADS * SIZE, bias=False) for _ in NAMES)
        self.o = nn.Linear(HEADS * SIZE, WIDTH, bias=False)

    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v) + 0.0 * q  # one position of q, k, v and o, as with rotary tables
        return x + self.o(y.transpose(1, 2).flatten(2))


@pytest.fixture
def traced():
    torch.manual_seed(0)
    model, batches = Attention(), [(torch.randn(20, 5, WIDTH) * torch.arange(1, WIDTH + 1),)]
    structure = trace(model, batches[0])
    return model, batches, structure, next(unit for unit in structure.units if unit.kind == "head_dim")


def test_shares_are_those_of_the_outputs_themselves(traced):
    model, batches, structure, unit = traced
    moments, _ = collect_moments(model, structure, measured_weights([unit]), batches)
    shares = energy_shares(unit, named_tensors(model), moments)
    for name, own in zip(NAMES, shares, strict=True):
        energy = model.get_submodule(name)(batches[0][0]).detach().square().reshape(-1, HEADS, SIZE).sum(dim=(0, 1))
        assert np.allclose(own, energy / energy.sum(), rtol=1e-5)


def test_a_position_without_a_part_in_the_scores_goes_first(traced):
    """Its values matter as much as those of others, so the output projection alone would keep it."""
    model, batches, structure, unit = traced
    with torch.no_grad():
        for layer in (model.q, model.k):
            layer.weight.view(HEADS, SIZE, WIDTH)[:, 2] = 0.0
    bank = make_bank(model, structure, [unit.name], obs, batches)
    assert bank.orders[unit.name][-1] == 2


def test_producers_of_head_dimensions_are_measured_and_predicted_but_not_refitted(traced):
    model, batches, structure, unit = traced
    assert consumers_of([unit]) == ("o.weight",)
    assert set(measured_weights([unit])) == {"o.weight", "q.weight", "k.weight", "v.weight"}
    assert statistics_bytes(model, structure, [unit.name]) == moments_bytes(model, structure, measured_weights([unit]))
    bank = make_bank(model, structure, [unit.name], obs, batches)
    assert set(bank.compensated(bank.subnet({unit.name: 2}))) == {"o.weight"}


def test_units_of_values_alone_have_no_shares():
    class Apart(Attention):
        def forward(self, x):
            q, k, v = (layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
            return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    model, batches = Apart(), [(torch.randn(20, 5, WIDTH),)]
    structure = trace(model, batches[0])
    units = [unit for unit in structure.units if unit.kind == "head_dim" and unit.with_role("in")]
    moments, _ = collect_moments(model, structure, measured_weights(structure.units), batches)
    assert [energy_shares(unit, named_tensors(model), moments) for unit in units] == [None] * len(units) != []


def test_other_units_have_no_shares():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    structure = trace(model, torch.randn(2, 3))
    unit = structure.units[0]
    moments, _ = collect_moments(model, structure, ["0.weight", "2.weight"], [(torch.randn(9, 3),)])
    assert measured_weights([unit]) == ("2.weight",)
    assert energy_shares(unit, named_tensors(model), moments) is None
