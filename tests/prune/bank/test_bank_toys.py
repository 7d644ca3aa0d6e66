"""Banks of every toy: whatever is refitted fits its place, is finite, and computes what the masked original does."""

from __future__ import annotations

import math

import pytest
import torch
from toys import TOYS

import autoprune
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.surgery.verify import verify_positions

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.mark.parametrize("name", TOYS)
def test_a_bank_of_any_network_builds_small_ones_that_compute_what_the_masked_original_does(name):
    model, example = TOYS[name].make()
    if isinstance(example, dict):
        pytest.skip("statistics are made of positional inputs")
    inputs = (example,) if isinstance(example, torch.Tensor) else tuple(example)
    structure = autoprune.find_structure(model, inputs)
    units = [unit for unit in structure.units if not unit.is_branch]
    bank = make_bank(model, structure, [unit.name for unit in units], obs, [inputs])
    counts = {unit.name: unit.allowed(math.ceil(unit.width / 2)) for unit in units}
    subnet = bank.subnet(counts)
    small = bank.build(subnet)
    assert all(bool(torch.isfinite(parameter).all()) for parameter in small.parameters())
    assert verify_positions(model, small, structure, subnet.positions, inputs, bank.tensors(subnet)).ok
