"""What a cut network keeps of the original, and what it must not share with it."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from networks import (
    Concatenated,
    FlatHead,
    Grouped,
    PooledHead,
    Prelu,
    Residual,
    fingerprint,
    images,
    network,
    same,
    some_positions,
)
from torch import nn
from torch.nn import functional as F

from autoprune.errors import SpaceError
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.masked import Masked
from autoprune.prune.surgery.surgery import cut, make_recipe, rebuild
from autoprune.prune.surgery.verify import verify_positions


@pytest.fixture
def model():
    return network([Residual, Prelu, Concatenated], FlatHead)


@pytest.fixture
def structure(model):
    return trace(model, images())


@pytest.fixture
def positions(structure):
    return some_positions(structure, seed=3)


def test_keeping_everything_is_bit_identical(model, structure):
    whole = {unit.name: np.arange(unit.width) for unit in structure.units}
    for kept in ({}, whole):
        small = cut(model, structure, kept)
        assert all(
            torch.equal(a, b) for a, b in zip(model.state_dict().values(), small.state_dict().values(), strict=True)
        )
        assert torch.equal(model(images()), small(images()))


def test_every_tensor_is_the_slice_numpy_takes(model, structure):
    small = cut(model, structure, {"1.conv1": np.array([1, 4])})
    weight = model[1].conv1.weight.detach().numpy()
    assert np.array_equal(small[1].conv1.weight.detach().numpy(), weight[[1, 4]])
    assert np.array_equal(small[1].bn1.running_var.numpy(), model[1].bn1.running_var.numpy()[[1, 4]])
    assert np.array_equal(small[1].conv2.weight.detach().numpy(), model[1].conv2.weight.detach().numpy()[:, [1, 4]])


def test_modules_know_their_new_sizes(model, structure):
    small = cut(model, structure, {"1.conv1": [1, 4], "2.conv": [0], "0": [0, 1, 2]})
    assert (small[1].conv1.out_channels, small[1].bn1.num_features, small[1].conv2.in_channels) == (2, 2, 2)
    assert small[2].slope.num_parameters == 1
    assert small[4].hidden.in_features == (3 + 1 + 4) * 36 == small[4].hidden.weight.shape[1]
    for module in small.modules():
        if isinstance(module, nn.Conv2d):
            assert module.weight.shape[:2] == (module.out_channels, module.in_channels)


def test_groups_shrink_with_their_channels():
    model = network([Grouped], PooledHead)
    structure = trace(model, images())
    for seed in range(8):
        small = cut(model, structure, some_positions(structure, seed))
        for conv in (small[1].same, small[1].more):
            assert conv.weight.shape[1] * conv.groups == conv.in_channels
            assert conv.weight.shape[0] == conv.out_channels
        small(images())


def test_the_model_is_bit_identical_afterwards_and_shares_nothing(model, structure, positions):
    before = fingerprint(model)
    small = cut(model, structure, positions)
    with torch.no_grad():
        for tensor in [*small.parameters(), *small.buffers()]:
            tensor.fill_(7)
    assert same(before, fingerprint(model))


def test_a_rebuilt_network_does_not_share_the_tensors_it_was_given():
    model = nn.Linear(2, 2)
    given = torch.ones(2, 2)
    small = rebuild(model, {"weight": given}, {})
    with torch.no_grad():
        small.weight.zero_()
    assert given.tolist() == [[1, 1], [1, 1]]


def test_training_modes_requires_grad_and_hooks_come_along(model, structure, positions):
    calls = []
    model.train()
    model[1].bn1.eval()
    model[1].conv2.weight.requires_grad_(False)
    model[2].register_forward_hook(lambda *_: calls.append("hook"))
    small = cut(model, structure, positions)
    assert small.training
    assert not small[1].bn1.training
    assert not small[1].conv2.weight.requires_grad
    assert small[1].conv1.weight.requires_grad
    small(images())
    assert calls == ["hook"]


def test_gradients_do_not_come_along(model, structure, positions):
    model(images()).sum().backward()
    assert all(parameter.grad is None for parameter in cut(model, structure, positions).parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(dtype):
    model = network([Residual], PooledHead).to(dtype)
    structure = trace(model, images().to(dtype))
    small = cut(model, structure, some_positions(structure, 0))
    assert {p.dtype for p in small.parameters()} == {dtype}
    assert small(images().to(dtype)).dtype == dtype


def test_channels_last_is_kept():
    model = network([Residual], PooledHead).to(memory_format=torch.channels_last)
    structure = trace(model, images())
    small = cut(model, structure, {"0": [0, 1, 3], "1.conv1": [0, 2]})
    last = [p.is_contiguous(memory_format=torch.channels_last) for p in small.parameters() if p.dim() == 4]
    assert all(last)
    assert not small[1].conv1.weight.is_contiguous()


def test_tied_weights_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.out = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.c.weight = self.b.weight

        def forward(self, x):
            return self.out(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))

    model, x = Tied(), torch.randn(4, 3)
    structure = trace(model, x)
    (unit,) = structure.units  # one weight reads and makes all three hidden layers
    small = cut(model, structure, {unit.name: [0, 3, 5]})
    assert small.b.weight is small.c.weight
    assert small.b.weight.shape == (3, 3)
    assert (small.b.in_features, small.c.in_features) == (3, 3)
    assert verify_positions(model, small, structure, {unit.name: [0, 3, 5]}, x).ok


def test_structure_and_recipe_are_plain_data(model, structure, positions):
    assert pickle.loads(pickle.dumps(structure)) == structure
    recipe = make_recipe(structure, positions)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    assert recipe.positions["1.conv1"] == tuple(positions["1.conv1"].tolist())
    again = rebuild(model, named_tensors(cut(model, structure, positions)), recipe.sizes)
    assert torch.equal(again(images()), cut(model, structure, positions)(images()))


@pytest.mark.parametrize(
    "wrong", [[], [-1, 2], [0, 5], [2, 1], [1, 1, 2], [0, 0, 1, 2, 3], [0.0, 1.0], [True, False], [[0, 1]]]
)
def test_positions_that_are_none_are_refused_with_the_unit(model, structure, wrong):
    with pytest.raises(SpaceError, match=r"unit '1.conv1' has positions 0 to 4: expected at least 1 to stay"):
        cut(model, structure, {"1.conv1": np.array(wrong)})


def test_positions_of_a_unit_there_is_not_are_refused(model, structure):
    with pytest.raises(SpaceError, match=r"no unit is called 'conv7'; units are \['0', "):
        cut(model, structure, {"conv7": np.array([0])})


def test_the_masked_original_is_the_original_whose_next_layer_reads_zeros(model, structure):
    """By hand, without the library: zero columns in the one weight that reads the unit."""
    kept = [1, 4]
    by_hand = copy_model(model)
    with torch.no_grad():
        by_hand[1].conv2.weight[:, [c for c in range(5) if c not in kept]] = 0
    masked = Masked(structure, {"1.conv1": np.array(kept)})
    with evaluating(model), torch.no_grad(), masked.watching(model):
        output = model(images())
    torch.testing.assert_close(output, by_hand(images()))
    assert not torch.allclose(output, model(images()))


def test_verification_fails_for_a_network_that_is_not_the_masked_one(model, structure, positions):
    small = cut(model, structure, positions)
    assert verify_positions(model, small, structure, positions, images()).ok
    with torch.no_grad():
        small[4].out.bias[0] += 0.1
    assert not verify_positions(model, small, structure, positions, images()).ok
    small[4].out.bias.data.fill_(float("nan"))
    assert verify_positions(model, small, structure, positions, images()).worst == float("inf")


def test_verification_compares_flags_integers_and_empty_outputs():
    class Outputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            y = self.b(F.relu(self.a(x)))
            return y > 0, y.argmax(1), y[:0]

    model, x = Outputs(), torch.randn(5, 3)
    structure = trace(model, x)
    report = verify_positions(model, cut(model, structure, {}), structure, {}, x)
    assert (report.errors, report.ok) == ((0.0, 0.0, 0.0), True)


def test_borrowed_modes_come_back_after_an_exception(model):
    model.train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluating(model):  # noqa: PT012
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before
