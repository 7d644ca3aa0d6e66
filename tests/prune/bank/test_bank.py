"""Compensated weights against numpy's least squares on the unfolded inputs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from networks import FlatHead, Plain, PooledHead, Residual, fingerprint, images, network, same
from torch import nn
from torch.nn import functional as F

from autoprune.errors import DataError
from autoprune.prune.bank import channels as bank_module
from autoprune.prune.bank.channels import make_bank
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria.surgeon import obs
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments import consumers, ridge
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.surgery import cut
from autoprune.prune.surgery.verify import verify_positions


class Strided(nn.Module):
    """A consumer with stride, dilation, padding and a bias, followed by no batch norm."""

    def __init__(self, bias=True):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 4, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), bias=bias)

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


class Joined(nn.Module):
    """Two units concatenated into one consumer."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.out = nn.Linear(5, 4), nn.Linear(5, 3), nn.Linear(7, 2)

    def forward(self, x):
        return self.out(torch.cat([F.relu(self.left(x)), torch.tanh(self.right(x))], dim=1))


def bank_of(model, batches, criterion=obs, structure=None):
    structure = structure or trace(model, batches[0])
    return make_bank(model, structure, [unit.name for unit in structure.units], criterion, batches)


def built(bank, counts):
    return bank.build(bank.subnet(counts))


def inputs_of(module, model, batches):
    """(k, n) the columns a module's weight multiplies, unfolded from what really goes in, batch by batch."""
    seen = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    with torch.no_grad():
        for batch in batches:
            model(*batch)
    hook.remove()
    if isinstance(module, nn.Linear):
        return torch.cat(seen).T.double().numpy()
    shape = (module.kernel_size, module.dilation, module.padding, module.stride)
    return torch.cat([F.unfold(x, *shape).transpose(0, 1).flatten(1) for x in seen], dim=1).double().numpy()


def least_squares(module, x, kept, constant):
    """Weights (o, kept columns) and constant that best repeat the module's dense output from the kept columns of x."""
    weight = module.weight.detach().double().flatten(1).numpy()
    block = weight.shape[1] // module.weight.shape[1]
    columns = (np.asarray(kept)[:, None] * block + np.arange(block)).ravel()
    rows = np.concatenate([x[columns], np.ones((1, x.shape[1]))]) if constant else x[columns]
    solved = np.linalg.lstsq(rows.T, (weight @ x).T, rcond=None)[0].T
    return (solved[:, :-1], solved[:, -1]) if constant else (solved, np.zeros(len(weight)))


@pytest.fixture
def tiny_ridge(monkeypatch):
    monkeypatch.setattr(ridge, "RIDGE", 1e-10)
    monkeypatch.setattr(consumers, "SCARCE", 0)  # no other ridge is chosen


BATCHES = [(images(8, seed),) for seed in (3, 4)]


@pytest.mark.usefixtures("tiny_ridge")
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_gets_the_least_squares_weights_and_constant(bias):
    model = Strided(bias)
    bank = bank_of(model, BATCHES)
    positions = bank.subnet({"first": 3}).positions
    small = built(bank, {"first": 3})
    x = inputs_of(model.second, model, BATCHES)
    weight, shift = least_squares(model.second, x, positions["first"], constant=bias)
    assert np.allclose(small.second.weight.detach().flatten(1), weight, atol=1e-4)
    if bias:
        assert np.allclose(small.second.bias.detach(), model.second.bias.detach().numpy() + shift, atol=1e-4)


@pytest.mark.usefixtures("tiny_ridge")
def test_two_units_concatenated_into_one_consumer_are_solved_together():
    model, batches = Joined(), [(torch.randn(40, 5),)]
    bank = bank_of(model, batches)
    counts = {"left": 2, "right": 1}
    positions, small = bank.subnet(counts).positions, built(bank, counts)
    kept = np.concatenate([positions["left"], positions["right"] + 4])
    weight, shift = least_squares(model.out, inputs_of(model.out, model, batches), kept, constant=True)
    assert np.allclose(small.out.weight.detach(), weight, atol=1e-4)
    assert np.allclose(small.out.bias.detach(), model.out.bias.detach().numpy() + shift, atol=1e-4)


@pytest.mark.usefixtures("tiny_ridge")
def test_a_constant_is_fitted_where_a_batch_norm_will_absorb_it():
    model = network([Residual], PooledHead)
    model[1].conv2.bias = None
    bank = bank_of(model, BATCHES)
    small = built(bank, {"1.conv1": 2})
    x = inputs_of(model[1].conv2, model, BATCHES)
    weight, _ = least_squares(model[1].conv2, x, bank.subnet({"1.conv1": 2}).positions["1.conv1"], constant=True)
    assert np.allclose(small[1].conv2.weight.detach().flatten(1), weight, atol=1e-3)


def test_compensation_repeats_the_dense_output_better_than_plain_slices():
    model = network([Residual, Plain], FlatHead)
    bank = bank_of(model, BATCHES)
    counts = {"1.conv1": 3, "2.conv": 4}
    compensated, plain = built(bank, counts), cut(model, bank.structure, bank.subnet(counts).positions)
    x = BATCHES[0][0]
    errors = [float((net(x) - model(x)).detach().square().mean()) for net in (compensated, plain)]
    assert errors[0] < 0.5 * errors[1]


def test_full_counts_give_the_original_bit_for_bit():
    model = network([Residual, Plain], PooledHead)
    bank = bank_of(model, BATCHES)
    full = {unit.name: unit.width for unit in bank.structure.units}
    for counts in (full, {}):
        small = built(bank, counts)
        assert all(torch.equal(t, named_tensors(small)[name]) for name, t in named_tensors(model).items())


def test_smaller_counts_keep_subsets_of_larger_ones():
    bank = bank_of(network([Residual, Plain], FlatHead), BATCHES)
    for unit in bank.structure.units:
        subnets = [bank.subnet({unit.name: count}) for count in range(1, unit.width + 1)]
        kept = [set(subnet.positions[unit.name].tolist()) for subnet in subnets]
        assert [len(positions) for positions in kept] == list(range(1, unit.width + 1))
        assert all(a < b for a, b in itertools.pairwise(kept))


def test_a_bank_builds_the_same_network_in_whatever_order():
    model = network([Residual, Plain], FlatHead)
    first, other = {"0": 3, "1.conv1": 2, "2.conv": 4}, {"0": 2, "1.conv1": 2}
    bank = bank_of(model, BATCHES)
    once = built(bank, first).state_dict()
    built(bank, other)
    again = built(bank, first).state_dict()
    alone = built(bank_of(model, BATCHES), first).state_dict()
    assert all(torch.equal(once[name], again[name]) and torch.equal(once[name], alone[name]) for name in once)


def test_training_a_built_network_does_not_reach_the_bank():
    bank = bank_of(network([Residual, Plain], FlatHead), BATCHES)
    counts = {"1.conv1": 2, "2.conv": 4}
    once = {name: tensor.clone() for name, tensor in built(bank, counts).state_dict().items()}
    small = built(bank, counts)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(once[name], tensor) for name, tensor in built(bank, counts).state_dict().items())


def test_a_cache_that_overflows_changes_nothing(monkeypatch):
    model = network([Residual, Plain], FlatHead)
    counts = {"0": 2, "1.conv1": 2, "2.conv": 4}
    expected = built(bank_of(model, BATCHES), counts).state_dict()
    monkeypatch.setattr(bank_module, "SOLUTION_CACHE_BYTES", 0)
    found = built(bank_of(model, BATCHES), counts).state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_the_small_network_is_the_masked_original_with_the_same_changed_weights():
    model = network([Residual, Plain], FlatHead)
    bank = bank_of(model, BATCHES)
    subnet = bank.subnet({"0": 2, "1.conv1": 3, "2.conv": 4})
    small = bank.build(subnet)
    solved = ("1.conv1", "1.conv2", "2.conv", "3.hidden")
    consumers = {n: t for n, t in bank.tensors(subnet).items() if n.startswith(solved) and "bn" not in n}
    assert {n.rpartition(".")[0] for n in consumers} == set(solved)
    assert verify_positions(model, small, bank.structure, subnet.positions, images(), consumers).ok


@pytest.mark.parametrize("name", CRITERIA)
def test_making_and_using_a_bank_leaves_the_model_as_it_was(name):
    model = network([Residual, Plain], FlatHead).train()
    before = fingerprint(model)
    built(bank_of(model, BATCHES, CRITERIA[name]), {"1.conv1": 1})
    assert same(before, fingerprint(model))


def test_the_model_is_left_as_it_was_when_a_batch_fails():
    model = network([Residual], PooledHead).train()
    structure = trace(model, images())
    before = fingerprint(model)
    with pytest.raises(RuntimeError, match="expected"):
        bank_of(model, [(images(),), (torch.zeros(1, 2, 6, 6),)], structure=structure)
    assert same(before, fingerprint(model))


def spoil(model, kind):
    """A network whose unit 'first' has channels that are dead, the same, or constant."""
    with torch.no_grad():
        if kind == "dead":
            model.first.weight.zero_()
            model.first.bias.fill_(-1.0)
        elif kind == "twins":
            model.first.weight.copy_(model.first.weight[:1].expand_as(model.first.weight))
            model.first.bias.fill_(0.1)
        elif kind == "constant":
            model.first.weight.zero_()
            model.first.bias.copy_(torch.linspace(0.1, 1e4, 6))
        elif kind == "zero consumer":
            model.second.weight.zero_()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["as it is", "dead", "twins", "constant", "zero consumer"])
@pytest.mark.parametrize("count", [1, 5])
def test_degenerate_channels_and_a_single_image_give_finite_weights(kind, count, bias):
    model = Strided(bias)
    spoil(model, kind)
    one_image = [(images(1),)]
    small = built(bank_of(model, one_image), {"first": count})
    assert all(torch.isfinite(parameter).all() for parameter in small.parameters())
    assert torch.isfinite(small(images())).all()


def test_twins_replace_each_other_without_any_error():
    model = Strided()
    spoil(model, "twins")
    small = built(bank_of(model, BATCHES), {"first": 1})
    assert torch.allclose(small(images()), model(images()), rtol=1e-3, atol=1e-3)


def test_a_unit_concatenated_with_itself_is_one_group_of_columns():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 3), nn.Linear(6, 2)

        def forward(self, x):
            y = F.relu(self.a(x))
            return self.b(torch.cat([y, -2 * y], dim=1))

    model = Doubled()
    small = built(bank_of(model, [(torch.randn(30, 5),)]), {"a": 2})
    assert small(torch.randn(4, 5)).shape == (4, 2)
    seen = []

    def look(weights, statistics):
        seen.extend(consumer.columns.tolist() for consumer in statistics.consumers)
        return torch.arange(3.0)

    bank_of(model, [(torch.randn(30, 5),)], look)
    assert seen == [[[0, 3], [1, 4], [2, 5]]]


def test_a_users_criterion_decides_what_stays():
    model = network([Residual], PooledHead)
    bank = bank_of(model, BATCHES, lambda weights, statistics: torch.arange(len(weights.producers[0])))
    assert bank.subnet({"1.conv1": 2}).positions["1.conv1"].tolist() == [3, 4]


def test_no_batches_are_an_error_that_says_so():
    model = network([Residual], PooledHead)
    structure = trace(model, images())
    with pytest.raises(DataError, match="expected at least one batch to collect statistics from"):
        make_bank(model, structure, ["1.conv1"], obs, iter(()))


def test_a_network_in_half_precision_and_channels_last_stays_that_way():
    model = network([Residual, Plain], FlatHead).to(torch.bfloat16, memory_format=torch.channels_last)
    batches = [(images(8).bfloat16(),)]
    small = built(bank_of(model, batches), {"0": 2, "1.conv1": 3})
    assert {parameter.dtype for parameter in small.parameters()} == {torch.bfloat16}
    assert small[1].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert not small[1].conv2.weight.is_contiguous()
