"""Random networks, random kept positions: the small network computes what the masked original computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import (
    HEADS,
    PATTERNS,
    SEQUENCE_HEADS,
    SEQUENCES,
    Contracted,
    Halved,
    LastToken,
    Perceptron,
    Plain,
    PooledHead,
    Shuffled,
    counted_macs,
    counted_params,
    example_of,
    fingerprint,
    hierarchical,
    network,
    packed_experts,
    same,
    some_positions,
)
from torch import nn
from toys import Net

import autoprune
from autoprune.prune.structure.trace import trace

WRITTEN_IN = {Shuffled}  # a number of groups in the forward: only the proof finds that it must stay
EINSUM = {Contracted, packed_experts}  # over one position it multiplies and adds, which torch's counter does not count
recipes = st.tuples(
    st.lists(st.sampled_from(PATTERNS + SEQUENCES), min_size=1, max_size=4),
    st.sampled_from(HEADS + SEQUENCE_HEADS),
    st.integers(0, 10_000),
)


def check(patterns, head, seed):
    model = network(patterns, head, seed)
    x = example_of(model)
    before = fingerprint(model)
    structure = autoprune.find_structure(model, x)
    assert same(before, fingerprint(model))
    assert not demoted(trace(model, x), structure) or WRITTEN_IN & set(patterns)
    positions = some_positions(structure, seed)
    small = autoprune.shrink(model, structure, {unit: kept.tolist() for unit, kept in positions.items()})
    report = autoprune.verify(model, small, structure, x)
    assert report.ok, report
    assert same(before, fingerprint(model))
    units = [unit.name for unit in structure.units]
    counts = [len(positions[unit]) for unit in units]
    costs = structure.cost.evaluate(units, np.array([counts]))
    assert costs["params"].tolist() == [counted_params(small)]
    if 1 not in counts or not EINSUM & set(patterns):
        assert costs["macs"].tolist() == [counted_macs(small, x)]


def demoted(found, proved):
    """The units that the algebra found and the proof took back, but for branches, of which it finds too many."""
    kept = {unit.name for unit in proved.units}
    return [unit.name for unit in found.units if unit.name not in kept and unit.kind != "branches"]


@settings(max_examples=8, deadline=None)
@given(recipes)
def test_cut_equals_masked_and_costs_equal_counting(recipe):
    check(*recipe)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipes)
def test_cut_equals_masked_and_costs_equal_counting_at_length(recipe):
    check(*recipe)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_images_alone(pattern, head):
    for seed in range(2):
        check([pattern], head, seed)


@pytest.mark.slow
@pytest.mark.parametrize("head", SEQUENCE_HEADS)
@pytest.mark.parametrize("pattern", SEQUENCES)
def test_every_pattern_of_sequences_alone(pattern, head):
    check([pattern], head, 0)


@pytest.mark.parametrize("pattern", PATTERNS + SEQUENCES)
def test_every_pattern_in_the_middle_shrinks_something(pattern):
    first, last = (Perceptron, LastToken) if pattern in SEQUENCES else (Plain, PooledHead)
    model = network([first, pattern, first], last)
    structure = autoprune.find_structure(model, example_of(model))
    small = autoprune.shrink(model, structure, 0.5)
    assert counted_params(small) < 0.8 * counted_params(model)


def test_what_an_activation_is_added_to_in_place_is_no_weight_any_more():
    def run(net, x):
        y = net.bias.expand(len(x), -1).clone()
        y += net.enter(x)
        return net.leave(y.relu())

    model = Net(run, enter=nn.Linear(5, 8), bias=nn.Parameter(torch.randn(8)), leave=nn.Linear(8, 3))
    (unit,) = autoprune.find_structure(model, torch.randn(2, 5)).units
    assert (unit.kind, unit.normalised) == ("neurons", False)
    assert {(slot.tensor, slot.role) for slot in unit.slots} == {
        ("enter.weight", "out"),
        ("enter.bias", "along"),
        ("bias", "along"),
        ("leave.weight", "in"),
    }


def test_an_error_is_not_hidden_by_activations_that_are_all_zero():
    """At one position a unit, as few as may stay, a rectifier is often shut: nothing it hides is proved."""

    def run(net, x):
        x = net.enter(x)
        return net.leave(net.middle(x if x.shape[-1] > 4 else 2 * x).relu())

    for seed in range(8):
        torch.manual_seed(seed)
        model = Net(run, enter=nn.Linear(5, 12), middle=nn.Linear(12, 8), leave=nn.Linear(8, 3))
        assert [unit.name for unit in autoprune.find_structure(model, torch.randn(2, 5)).units] == ["middle"]


def test_the_reference_runs_the_operators_of_the_trace_whatever_the_memory_format():
    """A linear layer is one operator for one layout of its input and another for another."""

    def run(net, x):
        return net.head(net.linear(net.norm(net.conv(x)).flatten(2).transpose(1, 2)).relu())

    layers = {
        "conv": nn.Conv2d(3, 6, 1),
        "norm": nn.GroupNorm(2, 6),
        "linear": nn.Linear(6, 4),
        "head": nn.Linear(4, 2),
    }
    model, x = Net(run, **layers), torch.randn(2, 3, 4, 4)
    for example in (x, x.contiguous(memory_format=torch.channels_last)):
        structure = autoprune.find_structure(model, example)
        assert [unit.name for unit in structure.units] == ["conv/1", "conv/2", "linear"], structure.frozen


def test_a_branch_can_go_whatever_else_goes():
    """What takes the way of a branch that is gone is cut by a stored size, of which it has few or many."""
    model = network([Halved, hierarchical], LastToken, 6652)
    structure, x = autoprune.find_structure(model, example_of(model)), example_of(model)
    for seed in range(20):
        kept = {unit: positions.tolist() for unit, positions in some_positions(structure, seed).items()}
        assert autoprune.verify(model, autoprune.shrink(model, structure, kept), structure, x).ok
