from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.core.objective import Bound, Objective
from autoprune.errors import ConfigError

DENSE = {"macs": 1000.0, "params": 50.0}


@given(st.floats(allow_nan=False))
def test_the_two_directions_are_mirror_images(value):
    assert Objective("x", "max").loss(value) == -Objective("x", "min").loss(value)
    assert Objective("x", "max").loss(value) == Objective("x", "min").loss(-value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("macs<=0.5", Bound("macs", "<=", 0.5)),
        ("macs=0.5", Bound("macs", "<=", 0.5)),
        ("accuracy>=0.9", Bound("accuracy", ">=", 0.9)),
        (" params  <= 100_000 ", Bound("params", "<=", 100_000)),
        ("latency_ms<=1e-3", Bound("latency_ms", "<=", 0.001)),
        ("loss>=-.5", Bound("loss", ">=", -0.5)),
    ],
)
def test_bounds_are_read_from_text(text, expected):
    assert Bound.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "macs", "macs<0.5", "macs<=", "<=0.5", "macs<=half", "macs<=0.5%", "macs<=nan", "macs<=e", "1a<=2", "a b<=2"],
)
def test_text_that_is_no_bound_is_quoted_in_the_error(text):
    with pytest.raises(ConfigError, match=r"expected a bound such as 'macs<=0.5'.*got ") as caught:
        Bound.parse(text)
    assert repr(text) in str(caught.value)


@given(st.sampled_from(["<=", ">="]), st.floats(-1e6, 1e6))
def test_a_bound_is_read_back_from_what_it_prints(sense, value):
    bound = Bound("macs", sense, float(f"{value:g}"))
    assert Bound.parse(str(bound)) == bound


@pytest.mark.parametrize(
    ("bound", "value"),
    [
        (Bound("macs", "<=", 0.5), 500),
        (Bound("macs", "<=", 1.0), 1000),  # one is a share, not one MAC
        (Bound("macs", "<=", 1.5), 1.5),
        (Bound("macs", "<=", 0.0), 0),
        (Bound("accuracy", ">=", 0.5), 0.5),  # no cost: never a share
    ],
)
def test_a_value_of_at_most_one_on_a_cost_is_a_share_of_dense(bound, value):
    assert bound.absolute(DENSE) == Bound(bound.name, bound.sense, value)


def test_a_bound_admits_its_own_value_and_never_nan():
    for bound in (Bound("x", "<=", 2.0), Bound("x", ">=", 2.0)):
        assert bound.admits(2.0)
        assert not bound.admits(float("nan"))
    assert Bound("x", "<=", 2.0).admits(1.0)
    assert not Bound("x", ">=", 2.0).admits(1.0)
