"""Tensors in one memory: tied ones stay tied and lose the same positions, parts and plain tensors say why they stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import autoprune
from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.copies import copy_model

WIDTH = 8


class Chain(nn.Module):
    """Three layers of one width between two others; `between` adds what a test is about."""

    def __init__(self, between=lambda net, x: x):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = nn.Linear(4, WIDTH), nn.Linear(WIDTH, 3)
        self.first, self.second = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.between = between

    def forward(self, x):
        x = torch.tanh(self.first(torch.tanh(self.enter(x))))
        return self.leave(torch.tanh(self.second(self.between(self, x))))


def example():
    return torch.randn(2, 5, 4)


def memory(tensor):
    return tensor.untyped_storage().data_ptr()


def tied():
    model = Chain()
    model.second.weight.data = model.first.weight.data
    return model


def tied_transposed():
    model = Chain()
    model.second.weight.data = model.first.weight.data.t()
    return model


def tied_as_convolution():
    model = Chain(lambda net, x: torch.tanh(net.conv(x.transpose(1, 2))).transpose(1, 2))
    model.conv = nn.Conv1d(WIDTH, WIDTH, 1, bias=False)
    model.conv.weight.data = model.first.weight.data.unsqueeze(-1)
    return model


def tied_buffers():
    model = Chain(lambda net, x: x * net.scale + net.shift)
    values = torch.rand(WIDTH)
    model.register_buffer("scale", values)
    model.register_buffer("shift", values.view(WIDTH))
    return model


TIED = {
    "weights": (tied, "first.weight", "second.weight"),
    "transposed": (tied_transposed, "first.weight", "second.weight"),
    "a convolution's": (tied_as_convolution, "first.weight", "conv.weight"),
    "buffers": (tied_buffers, "scale", "shift"),
}


@pytest.mark.parametrize("name", TIED)
def test_tensors_that_share_their_data_share_it_in_small_networks_and_copies(name):
    make, one, other = TIED[name]
    model = make().eval()
    structure = autoprune.find_structure(model, example())
    assert structure.frozen == ()
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, example()).ok
    for network in (small, copy_model(model), copy_model(small)):
        left, right = (dict(network.state_dict(keep_vars=True))[key] for key in (one, other))
        assert memory(left) == memory(right) != memory(model.state_dict()[one])
        left.data.flatten()[0] = 7.0
        assert 7.0 in right


def test_weights_tied_crosswise_lose_the_same_positions():
    """second = first transposed, so what first makes is what second makes of it again: one unit on each side."""
    model = tied_transposed().eval()
    structure = autoprune.find_structure(model, example())
    inner = next(u for u in structure.units if ("second.weight", 1) in [(s.tensor, s.dim) for s in u.slots])
    small = autoprune.shrink(model, structure, {inner.name: [1, 2, 5]})
    assert small.first.weight.shape == (3, WIDTH)
    assert small.second.weight.shape == (WIDTH, 3)
    assert torch.equal(small.second.weight, small.first.weight.t())
    x, zeroed = example(), copy.deepcopy(model)
    with torch.no_grad():
        zeroed.second.weight = nn.Parameter(model.second.weight.clone())
        zeroed.second.weight[:, [0, 3, 4, 6, 7]] = 0
    torch.testing.assert_close(small(x), zeroed(x))


def test_a_tied_small_network_is_trained_as_one_weight():
    model = tied().eval()
    small = autoprune.shrink(model, autoprune.find_structure(model, example()), 0.5)
    before = small.second.weight.clone()
    optimiser = torch.optim.SGD([small.first.weight], 0.1)
    small(example()).square().sum().backward()
    optimiser.step()
    assert not torch.equal(small.second.weight, before)
    assert torch.equal(small.second.weight, small.first.weight)


def test_a_plain_tensor_in_the_memory_of_a_weight_is_sliced_with_it():
    model = Chain(lambda net, x: torch.tanh(F.linear(x, net.again[0])))
    model.again = [model.first.weight.data]
    model.eval()
    structure = autoprune.find_structure(model, example())
    assert structure.frozen == ()
    small = autoprune.shrink(model, structure, 0.5)
    assert memory(small.again[0]) == memory(small.first.weight) != memory(model.first.weight)
    assert autoprune.verify(model, small, structure, example()).ok


def flat(model):
    """All weights of the model become views of one parameter."""
    whole = torch.cat([model.first.weight.data.flatten(), model.second.weight.data.flatten()])
    model.flat = nn.Parameter(whole)
    model.first.weight.data, model.second.weight.data = (part.view(WIDTH, WIDTH) for part in model.flat.data.chunk(2))
    return model


def test_views_of_a_flat_parameter_stay_whole_with_a_reason_and_stay_views():
    model = flat(Chain()).eval()
    structure = autoprune.find_structure(model, example())
    assert all(unit.name not in ("first", "second") for unit in structure.units)
    assert any("'first.weight' is a part of the memory of 'flat'" in row.reason for row in structure.frozen)
    again = copy_model(model)
    assert memory(again.first.weight) == memory(again.second.weight) == memory(again.flat) != memory(model.flat)
    assert torch.equal(again.flat, model.flat)


def test_views_of_a_flat_tensor_that_is_no_parameter_are_weights_of_their_own():
    model = flat(Chain())
    del model.flat
    structure = autoprune.find_structure(model.eval(), example())
    assert structure.frozen == ()
    small = autoprune.shrink(model, structure, 0.5)
    assert autoprune.verify(model, small, structure, example()).ok


def test_a_row_of_a_weight_that_the_forward_reads_keeps_the_weight_whole():
    model = Chain(lambda net, x: x + net.row)
    model.row = model.second.weight.data[0]
    structure = autoprune.find_structure(model.eval(), example())
    assert any("'row' is a part of the memory of 'second.weight'" in row.reason for row in structure.frozen)
    small = copy_model(model)
    assert memory(small.row) == memory(small.second.weight) != memory(model.row)


def test_a_row_of_a_weight_that_nothing_reads_keeps_nothing():
    model = Chain()
    model.logged = model.second.weight.data[0]
    assert autoprune.find_structure(model.eval(), example()).frozen == ()


def test_weights_that_overlap_are_refused_in_words():
    model, whole = Chain(), torch.randn(100)
    model.first.weight.data, model.second.weight.data = whole[:64].view(8, 8), whole[32:96].view(8, 8)
    with pytest.raises(UnsupportedModel, match="'first.weight' and 'second.weight' overlap. Give one of them a copy"):
        autoprune.find_structure(model, example())


class Placed(nn.Module):
    """Adds a table of positions, kept as an attribute of one form or another."""

    def __init__(self, table, read):
        super().__init__()
        self.table, self.read = table, read

    def forward(self, x):
        return x + self.read(self.table)


def table():
    torch.manual_seed(1)
    return torch.randn(5, WIDTH)


PLAIN = {
    "an attribute": (table, lambda kept: kept, "table of module '1'"),
    "a list": (lambda: [table()], lambda kept: kept[0], "table[0] of module '1'"),
    "a tuple in a dictionary": (
        lambda: {"sine": (table(),)},
        lambda kept: kept["sine"][0],
        "table['sine'][0] of module '1'",
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_tensor_that_is_not_registered_says_that_it_should_be(name):
    make, read, said = PLAIN[name]
    model = nn.Sequential(nn.Linear(4, WIDTH), Placed(make(), read), nn.Tanh(), nn.Linear(WIDTH, 3)).eval()
    reason = autoprune.find_structure(model, example()).frozen[0].reason
    assert said in reason
    assert "register_buffer" in reason


def test_the_same_tensor_as_a_buffer_is_sliced():
    class Registered(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("table", table())

        def forward(self, x):
            return x + self.table

    chain = nn.Sequential(nn.Linear(4, WIDTH), Registered(), nn.Tanh(), nn.Linear(WIDTH, 3)).eval()
    structure = autoprune.find_structure(chain, example())
    small = autoprune.shrink(chain, structure, {"0": [1, 4]})
    assert torch.equal(small[1].table, chain[1].table[:, [1, 4]])


def test_results_of_an_earlier_forward_that_a_module_keeps_are_left_alone():
    class Keeping(nn.Linear):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    model = nn.Sequential(Keeping(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3)).eval()
    model(example())
    structure = autoprune.find_structure(model, example())
    assert structure.frozen == ()
    assert autoprune.verify(model, autoprune.shrink(model, structure, 0.5), structure, example()).ok
