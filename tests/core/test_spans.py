"""Where positions lie, against what numpy does when it reshapes and transposes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.core.unit import Slot, Span, Unit

small = st.integers(1, 4)


@given(st.lists(small, min_size=1, max_size=4), st.data())
def test_a_factor_of_a_flattened_array_is_found_where_reshape_puts_it(shape, data):
    """The indices of position i along one dimension are the flat indices of arange(n).reshape(shape) there."""
    axis = data.draw(st.integers(0, len(shape) - 1))
    inner = int(np.prod(shape[axis + 1 :]))
    strides = [int(np.prod(shape[dim + 1 :])) for dim in range(axis)]
    span = Span(0, inner, tuple(zip(shape[:axis], strides, strict=True)))
    flat = np.arange(np.prod(shape)).reshape(shape)
    expected = np.moveaxis(flat, axis, 0).reshape(shape[axis], -1)
    assert np.sort(span.indices(np.arange(shape[axis])), axis=1).tolist() == np.sort(expected, axis=1).tolist()


@given(small, small, small)
def test_an_offset_skips_what_was_concatenated_before(before, count, inner):
    joined = np.concatenate([np.full(before, -1), np.repeat(np.arange(count), inner)])
    found = Span(before, inner).indices(np.arange(count))
    assert [np.flatnonzero(joined == i).tolist() for i in range(count)] == found.tolist()


def test_the_flattened_feature_map_of_the_docstring():
    assert Span(inner=4).indices(np.array([0, 2])).tolist() == [[0, 1, 2, 3], [8, 9, 10, 11]]  # c of (c, 2, 2)
    rows = Span(inner=2, repeats=((3, 4),)).indices(np.array([1]))  # h of (3, 2, 2)
    assert rows.tolist() == [[2, 3, 6, 7, 10, 11]]


def test_no_positions_cover_no_indices():
    assert Span(3, 2, ((5, 7),)).indices(np.array([], dtype=int)).shape == (0, 10)


@pytest.fixture
def unit():
    slots = (
        Slot("b.weight", 0, "out"),
        Slot("b.bias", 0, "along"),
        Slot("c.weight", 1, "in"),
        Slot("c.weight", 1, "in", Span(4)),
    )
    return Unit("b", "channels", 4, slots)


def test_a_unit_lists_its_slots_by_role_and_each_module_once(unit):
    assert unit.with_role("in") == unit.slots[2:]
    assert unit.with_role("out") == unit.slots[:1]
    assert unit.modules == ("b", "c")
