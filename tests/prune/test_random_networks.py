"""Random networks, random kept positions: the small network computes what the masked original computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import (
    HEADS,
    PATTERNS,
    Shuffled,
    counted_macs,
    counted_params,
    fingerprint,
    images,
    network,
    same,
    some_positions,
)

from autoprune.prune.surgery import cut
from autoprune.prune.trace import trace
from autoprune.prune.verify import demote_wrong_units, verify_positions

recipes = st.tuples(
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=4), st.sampled_from(HEADS), st.integers(0, 10_000)
)


def check(patterns, head, seed):
    model, x = network(patterns, head, seed), images()
    before = fingerprint(model)
    structure = demote_wrong_units(model, found := trace(model, x), x)
    # the number of groups is written into the forward of a shuffle; all else the algebra gets right by itself
    assert structure == found or Shuffled in patterns
    positions = some_positions(structure, seed)
    small = cut(model, structure, positions)
    report = verify_positions(model, small, structure, positions, x)
    assert report.ok, report
    assert same(before, fingerprint(model))
    units = [unit.name for unit in structure.units]
    costs = structure.cost.evaluate(units, np.array([[len(positions[unit]) for unit in units]]))
    assert costs["macs"].tolist() == [counted_macs(small, x)]
    assert costs["params"].tolist() == [counted_params(small)]


@settings(max_examples=40, deadline=None)
@given(recipes)
def test_cut_equals_masked_and_costs_equal_counting(recipe):
    check(*recipe)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(recipes)
def test_cut_equals_masked_and_costs_equal_counting_at_length(recipe):
    check(*recipe)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_pattern_alone(pattern, head):
    for seed in range(3):
        check([pattern], head, seed)
