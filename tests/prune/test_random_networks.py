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
    LastToken,
    Perceptron,
    Plain,
    PooledHead,
    Shuffled,
    counted_macs,
    counted_params,
    example_of,
    fingerprint,
    network,
    packed_experts,
    same,
    some_positions,
)
from torch import nn
from toys import Net

import autoprune
from autoprune.prune.trace import trace

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


@settings(max_examples=40, deadline=None)
@given(recipes)
def test_cut_equals_masked_and_costs_equal_counting(recipe):
    check(*recipe)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipes)
def test_cut_equals_masked_and_costs_equal_counting_at_length(recipe):
    check(*recipe)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_of_images_alone(pattern, head):
    for seed in range(2):
        check([pattern], head, seed)


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
