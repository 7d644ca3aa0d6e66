"""Weight units: which weights have one, and that the costs are those of the zeros really there."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from networks import (
    HEADS,
    PATTERNS,
    SEQUENCE_HEADS,
    SEQUENCES,
    counted_macs,
    counted_params,
    example_of,
    network,
    some_positions,
)
from torch import nn
from torch.nn import functional as F
from toys import Net

import autoprune
from autoprune.core.levels import LevelRule
from autoprune.core.sparse import with_sparse_costs
from autoprune.prune.bank.weight_units import sparse_units, sparse_weights
from autoprune.prune.bank.weights import make_weight_bank
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments import consumers
from autoprune.prune.surgery.surgery import kept_indices

WEIGHTS = LevelRule("*", (0.5,), "weights")
PAIRS = LevelRule("*", (0.5,), "pattern", group=2)


def found(model, example, *rules):
    return sparse_weights(model, autoprune.find_structure(model, example), rules)


def effective_macs(dense_macs, network, example, zeros):
    """Those of the network less what its zeros would multiply, counted while it runs."""
    saved = []

    def count(name):
        def hook(module, inputs, output):
            places = output.numel() // module.weight.shape[0]
            saved.append(zeros[name] * places)

        return hook

    for name in zeros:
        network.get_submodule(name.removesuffix(".weight")).register_forward_hook(count(name))
    with torch.no_grad():
        network(example)
    return dense_macs - sum(saved)


@functools.cache
def analysed(pattern):
    """A network of one pattern with its example and structure; the tests that share it leave it as it is."""
    model = network([pattern], HEADS[0] if pattern in PATTERNS else SEQUENCE_HEADS[0])
    x = example_of(model)
    return model, x, autoprune.find_structure(model, x)


def check(model, x, structure, rule, seed):
    """Random positions and random counts of weights: costs against counting."""
    weights = sparse_weights(model, structure, [rule])
    positions, rng = some_positions(structure, seed), np.random.default_rng(seed)
    small = autoprune.shrink(model, structure, {unit: kept.tolist() for unit, kept in positions.items()})
    for parameter in small.parameters():  # no zeros but those that are put there
        parameter.data = torch.where(parameter == 0, torch.ones(()), parameter)
    macs = counted_macs(small, x)
    counts = {name: int(rng.integers(1, weight.whole + 1)) for name, weight in weights.items()}
    bank = make_weight_bank(model, structure, weights, "magnitude", [])
    bank.apply(small, counts, kept_indices(structure.units, positions, named_tensors(model)))
    zeros = {name: int((p == 0).sum()) for name, p in small.named_parameters() if name in weights}
    assert sum(zeros.values()) == sum(int((p == 0).sum()) for p in small.parameters())
    all_counts = counts | {unit: len(kept) for unit, kept in positions.items()}
    costs = with_sparse_costs(structure.cost, weights).evaluate(list(all_counts), np.array([list(all_counts.values())]))
    if weights:
        assert costs["nonzeros"].tolist() == [counted_params(small) - sum(zeros.values())]
        assert costs["effective_macs"].tolist() == [effective_macs(costs["macs"][0], small, x, zeros)]
    assert costs["macs"][0] >= macs or not weights
    return weights


@pytest.mark.parametrize("rule", [WEIGHTS, PAIRS], ids=["weights", "pattern"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_costs_of_images_are_those_of_the_zeros_there(pattern, rule):
    check(*analysed(pattern), rule, 0)


@pytest.mark.parametrize("rule", [WEIGHTS, PAIRS], ids=["weights", "pattern"])
@pytest.mark.parametrize("pattern", SEQUENCES)
def test_costs_of_sequences_are_those_of_the_zeros_there(pattern, rule):
    check(*analysed(pattern), rule, 1)


def plain():
    layers = {"conv": nn.Conv2d(3, 8, 3), "deep": nn.Conv2d(8, 8, 3, groups=8), "fc": nn.Linear(8, 4)}
    return Net(lambda net, x: net.fc(net.deep(net.conv(x).relu()).mean((2, 3))), **layers), torch.randn(1, 3, 8, 8)


def test_every_weight_of_a_convolution_or_linear_layer_has_a_unit():
    model, x = plain()
    units = sparse_units(model, found(model, x, WEIGHTS))
    assert [(unit.name, unit.kind, unit.width, unit.least) for unit in units] == [
        ("conv.weight", "weights", 216, 0),
        ("deep.weight", "weights", 72, 0),
        ("fc.weight", "weights", 32, 0),
    ]


def test_no_unit_where_no_rule_asks():
    model, x = plain()
    assert found(model, x, LevelRule("*", (0.5,))) == {}
    assert all(not unit.is_sparse for unit in autoprune.find_structure(model, x).units)


def test_patterns_need_as_many_inputs_as_a_group():
    model, x = plain()
    weights = found(model, x, LevelRule("*", (0.5,), "pattern"))
    assert {name: weight.group for name, weight in weights.items()} == {"fc.weight": 4}


def test_of_several_rules_the_first_for_a_weight_counts():
    model, x = plain()
    weights = found(model, x, LevelRule("fc*", (0.5,), "pattern", group=8), WEIGHTS, LevelRule("*", (0.5,), "pattern"))
    assert {name: weight.group for name, weight in weights.items()} == {
        "conv.weight": 0,
        "deep.weight": 0,
        "fc.weight": 8,
    }


def test_weights_that_are_shared_or_used_without_their_module_have_no_unit():
    def run(net, x):
        return net.last(net.tied(net.first(x)) + F.linear(x, net.beside.weight))

    shared = nn.Linear(6, 6)
    model = Net(run, first=shared, tied=nn.Linear(6, 6), beside=nn.Linear(6, 6), last=nn.Linear(6, 2))
    model.tied.weight = shared.weight
    assert list(found(model, torch.randn(1, 6), WEIGHTS)) == ["last.weight"]


def test_a_module_that_runs_twice_multiplies_its_weights_twice():
    model = Net(lambda net, x: net.last(net.twice(net.twice(x))), twice=nn.Linear(6, 6), last=nn.Linear(6, 2))
    weights = found(model, torch.randn(1, 6), WEIGHTS)
    assert [weight.uses for weight in weights.values()] == [2, 1]


def moments_model(bias=True):
    torch.manual_seed(0)
    model = Net(lambda net, x: net.b(net.a(x).relu()), a=nn.Linear(8, 12, bias=bias), b=nn.Linear(12, 5, bias=bias))
    mixing = torch.randn(8, 8)
    return model, [(torch.randn(50, 8) @ mixing + 1.0,) for _ in range(4)]


def built(model, batches, masks, counts):
    structure = autoprune.find_structure(model, batches[0][0][:1])
    bank = make_weight_bank(model, structure, sparse_weights(model, structure, [WEIGHTS]), masks, batches)
    small = autoprune.shrink(model, structure, {})
    bank.apply(small, counts, {})
    return small


def test_zeros_with_an_update_are_closer_to_the_dense_outputs_than_without():
    model, batches = moments_model()
    x = torch.cat([inputs[0] for inputs in batches])
    with torch.no_grad():
        errors = {
            masks: float((built(model, batches, masks, {"a.weight": 48}).a(x) - model.a(x)).square().mean())
            for masks in ("obs", "wanda", "magnitude")
        }
    assert errors["obs"] < 0.7 * min(errors["wanda"], errors["magnitude"])


def test_the_bias_takes_up_the_mean_of_what_goes():
    model, batches = moments_model()
    x = torch.cat([inputs[0] for inputs in batches])
    small = built(model, batches, "obs", {"a.weight": 20})
    torch.testing.assert_close(small.a(x).mean(0), model.a(x).mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masks", ["obs", "wanda", "magnitude"])
def test_a_weight_whose_unit_is_dense_is_bit_identical(masks):
    model, batches = moments_model()
    small = built(model, batches, masks, {"a.weight": 96, "b.weight": 10})
    assert torch.equal(small.a.weight, model.a.weight)
    assert int((small.b.weight != 0).sum()) == 10


@pytest.mark.parametrize("masks", ["obs", "wanda", "magnitude"])
def test_a_weight_may_go_as_a_whole(masks):
    model, batches = moments_model()
    small = built(model, batches, masks, {"b.weight": 0})
    assert not small.b.weight.any()
    assert torch.isfinite(small(batches[0][0])).all()


def test_the_same_counts_give_the_same_weights_whatever_came_before():
    model, batches = moments_model()
    structure = autoprune.find_structure(model, batches[0][0][:1])
    bank = make_weight_bank(model, structure, sparse_weights(model, structure, [WEIGHTS]), "obs", batches)
    made = []
    for count in (30, 60, 30):
        small = autoprune.shrink(model, structure, {})
        bank.apply(small, {"a.weight": count}, {})
        made.append(small.a.weight)
    assert torch.equal(made[0], made[2])
    assert not torch.equal(made[0], made[1])


def test_weights_that_were_changed_before_decide_themselves_what_stays():
    model, batches = moments_model()
    structure = autoprune.find_structure(model, batches[0][0][:1])
    bank = make_weight_bank(model, structure, sparse_weights(model, structure, [WEIGHTS]), "magnitude", batches)
    small = autoprune.shrink(model, structure, {})
    with torch.no_grad():
        small.a.weight.zero_()[3] = 7.0
    bank.apply(small, {"a.weight": 8}, {})
    assert small.a.weight.nonzero()[:, 0].tolist() == [3] * 8


def test_a_function_of_ones_own_chooses_what_stays():
    model, batches = moments_model()

    def last(weight, moments):
        return torch.arange(weight.numel(), dtype=torch.float64).view_as(weight)

    small = built(model, batches, last, {"b.weight": 3})
    assert small.b.weight.flatten().nonzero().squeeze(1).tolist() == [57, 58, 59]


def test_a_plug_in_gets_a_weight_for_each_group():
    model, _ = plain()
    shapes = {}

    def scores(weight, moments):
        shapes[tuple(weight.shape)] = tuple(moments.gram.shape)
        return weight.abs()

    built(model, [(torch.randn(4, 3, 8, 8),)], scores, {"conv.weight": 100, "deep.weight": 30})
    assert shapes == {(1, 8, 27): (1, 27, 27), (8, 1, 9): (8, 9, 9)}


def test_layers_without_statistics_are_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(consumers, "default_limit", lambda device: 1 << 20)
    model = Net(lambda net, x: net.wide(net.thin(x)), thin=nn.Conv2d(1, 300, 1), wide=nn.Conv2d(300, 2, 3))
    structure = autoprune.find_structure(model, torch.randn(1, 1, 4, 4))
    sparse = sparse_weights(model, structure, [WEIGHTS])
    bank = make_weight_bank(model, structure, sparse, "obs", [(torch.randn(4, 1, 4, 4),)])
    assert bank.remarks == {
        "wide.weight": "keeps its largest entries as they are: 2700 columns are too many for statistics"
    }
    small = autoprune.shrink(model, structure, {})
    bank.apply(small, {"wide.weight": 50}, {})
    kept = small.wide.weight != 0
    assert int(kept.sum()) == 50
    assert torch.equal(small.wide.weight[kept], model.wide.weight[kept])


class Grouped(nn.Module):
    """A grouped and a depthwise convolution that read the same channels."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 16, 1), nn.Conv2d(24, 5, 1)
        self.grouped, self.deep = nn.Conv2d(16, 8, 3, groups=4), nn.Conv2d(16, 16, 3, groups=16)

    def forward(self, x):
        x = self.first(x).relu()
        return self.last(torch.cat([self.grouped(x), self.deep(x)], dim=1).relu())


def grouped_model():
    """A model, its structure and four batches of images whose channels have much in common."""
    torch.manual_seed(0)
    model, mixing = Grouped(), torch.randn(3, 3)
    batches = [((torch.randn(10, 9, 9, 3) @ mixing + 0.5).movedim(-1, 1),) for _ in range(4)]
    return model, autoprune.find_structure(model, batches[0][0][:1]), batches


@pytest.mark.parametrize(("name", "rule"), [("grouped", WEIGHTS), ("grouped", PAIRS), ("deep", WEIGHTS)])
def test_zeros_in_grouped_convolutions_are_made_up_for(name, rule):
    model, structure, batches = grouped_model()
    sparse = sparse_weights(model, structure, [rule])
    weight, errors = sparse[f"{name}.weight"], {}
    with torch.no_grad():
        x = model.first(torch.cat([inputs[0] for inputs in batches])).relu()
        for masks in ("obs", "magnitude"):
            bank = make_weight_bank(model, structure, sparse, masks, batches)
            small = autoprune.shrink(model, structure, {})
            bank.apply(small, {weight.unit: weight.whole // 2}, {})
            assert int((small.get_parameter(weight.unit) != 0).sum()) == weight.width // 2
            errors[masks] = float((small.get_submodule(name)(x) - model.get_submodule(name)(x)).square().mean())
    assert not bank.remarks
    assert errors["obs"] < 0.7 * errors["magnitude"]


def test_zeros_beside_channels_and_groups_that_went_are_those_of_the_small_network_itself():
    model, structure, batches = grouped_model()
    removed = {unit.name: list(range(unit.width))[1:] for unit in structure.units if unit.name.startswith("first")}
    small, again = (autoprune.shrink(model, structure, removed) for _ in range(2))
    assert len(small.grouped.weight) < len(model.grouped.weight)
    assert small.grouped.weight.shape[1] < model.grouped.weight.shape[1]
    indices = kept_indices(structure.units, {n: np.array(p) for n, p in removed.items()}, named_tensors(model))
    bank = make_weight_bank(model, structure, sparse_weights(model, structure, [WEIGHTS]), "obs", batches)
    own = autoprune.find_structure(small, batches[0][0][:1])
    own_bank = make_weight_bank(small, own, sparse_weights(small, own, [WEIGHTS]), "obs", batches)
    for name in ("grouped.weight", "deep.weight"):
        half, own_weight = bank.weights[name].width // 2, own_bank.weights[name]
        bank.apply(small, {name: half}, indices)
        kept = bank.weights[name].kept(half, own_weight.width, small.get_parameter(name).shape[1])
        own_bank.apply(again, {name: int(kept)}, {})
        torch.testing.assert_close(small.get_parameter(name), again.get_parameter(name), rtol=1e-4, atol=1e-4)
