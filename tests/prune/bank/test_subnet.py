"""What follows from a candidate's counts: by hand, on two linear layers."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.core.levels import LevelRule
from autoprune.prune.bank.channels import Bank
from autoprune.prune.bank.weight_units import sparse_weights
from autoprune.prune.bank.weights import make_weight_bank


@pytest.fixture
def bank():
    """Position 2 of the hidden units is kept longest, then 0, then 1; a third of the last weight can be zeros."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    structure = autoprune.find_structure(model, torch.randn(1, 4))
    weights = sparse_weights(model, structure, [LevelRule("2.weight", (0.5,), "weights")])
    bank = Bank(model, structure, {"0": np.array([2, 0, 1])}, {}, {})
    return bank.with_weights(make_weight_bank(model, structure, weights, "magnitude", []))


def test_positions_and_indices_are_those_that_are_kept_longest(bank):
    subnet = bank.subnet({"0": 2})
    assert {unit: kept.tolist() for unit, kept in subnet.positions.items()} == {"0": [0, 2]}
    kept = {name: {dim: index.tolist() for dim, index in dims.items()} for name, dims in subnet.indices.items()}
    assert kept == {"0.weight": {0: [0, 2]}, "0.bias": {0: [0, 2]}, "2.weight": {1: [0, 2]}}
    assert subnet.recipe.positions == {"0": (0, 2)}
    assert (subnet.recipe.sizes["0"], subnet.recipe.sizes["2"]) == ({"out_features": 2}, {"in_features": 2})


@pytest.mark.parametrize(
    ("counts", "sparse", "whole"),
    [
        ({}, (), True),
        ({"0": 3}, (), True),
        ({"0": 3, "2.weight": 6}, (), True),
        ({"0": 2, "2.weight": 6}, (), False),
        ({"0": 3, "2.weight": 5}, ("2.weight",), False),
    ],
)
def test_a_subnet_is_whole_where_neither_positions_nor_entries_go(bank, counts, sparse, whole):
    subnet = bank.subnet(counts)
    assert (subnet.sparse, subnet.is_whole) == (sparse, whole)


def test_the_network_of_a_subnet_has_the_rows_columns_and_zeros_it_says(bank):
    small = bank.build(bank.subnet({"0": 2, "2.weight": 3}))
    assert torch.equal(small[0].weight, bank.model[0].weight[[0, 2]])
    columns = bank.model[2].weight[:, [0, 2]]  # half of six entries: two of these four stay
    largest = columns.abs().flatten().topk(2).indices
    expected = torch.zeros(4).index_copy(0, largest, columns.flatten()[largest]).view(2, 2)
    assert torch.equal(small[2].weight, expected)


def test_a_subnet_keeps_what_it_worked_out_and_cannot_be_changed(bank):
    subnet = bank.subnet({"0": 2})
    assert subnet.indices is subnet.indices
    assert subnet.positions is subnet.positions
    with pytest.raises(dataclasses.FrozenInstanceError):
        subnet.counts = {}
