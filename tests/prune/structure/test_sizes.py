"""Integers that remember axes: plain integers to everybody, and what the algebra learns from them."""

from __future__ import annotations

import copy
import enum
import json
import math
import operator
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import check_pruned
from torch import nn
from toys import Net, sequence

from autoprune.prune.modules.attributes import get, numbers, put
from autoprune.prune.structure.axes import Atom, Product, Sum, leaves, resolve
from autoprune.prune.structure.sizes import Size, Sizes

ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
    "/": operator.truediv,
    "**": operator.pow,
    "divmod": divmod,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
    "max": max,
}


def length(count, sizes=None):
    return (sizes or Sizes()).length(Atom(count), count)


@pytest.mark.parametrize("name", ARITHMETIC)
@given(st.integers(1, 30), st.integers(1, 6))
def test_arithmetic_is_that_of_integers_on_either_side_and_on_both(name, left, right):
    compute = ARITHMETIC[name]
    wanted = compute(left, right)
    for a, b in ((length(left), right), (left, length(right)), (length(left), length(right))):
        assert compute(a, b) == wanted
        assert isinstance(compute(a, b), type(wanted))


@pytest.mark.parametrize("name", ["+", "-", "*", "//"])
def test_sums_differences_products_and_quotients_remember_and_the_rest_does_not(name):
    assert isinstance(ARITHMETIC[name](length(12), 4), Size)
    assert isinstance(ARITHMETIC[name](24, length(12)), Size)
    assert isinstance(-length(12), Size)
    for forgets in (operator.mod, operator.pow, max):
        assert type(forgets(length(12), 13)) is int


def test_arithmetic_with_other_numbers_is_theirs():
    assert length(12) * 0.5 == 6.0
    assert 0.5 + length(12) == 12.5
    assert length(12) * [0] == [0] * 12
    with pytest.raises(TypeError, match="unsupported operand"):
        length(12) - "a"


def test_a_size_serves_wherever_an_integer_does():
    n = length(3)
    assert {3: "three"}[n] == {n: "three"}[3] == "three"
    assert hash(n) == hash(3)
    assert list(range(n)) == [0, 1, 2]
    assert [0, 1, 2, 3, 4][:n] == [0, 1, 2]
    assert [0, 1, 2, 3, 4][n] == 3
    assert "ab" * n == "ababab"
    assert f"{n} {n:03d} {n!r}" == "3 003 3"
    assert (math.sqrt(n), float(n), int(n), bool(n)) == (math.sqrt(3), 3.0, 3, True)
    assert torch.arange(n).tolist() == torch.zeros(n).add(torch.arange(3)).tolist()
    assert sorted([length(5), 4, n]) == [3, 4, 5]


def test_what_is_stored_or_copied_is_a_plain_integer():
    n = length(3) * 4
    assert json.loads(json.dumps({"n": n, "list": [n]})) == {"n": 12, "list": [12]}
    for stored in (pickle.loads(pickle.dumps(n)), copy.copy(n), copy.deepcopy([n])[0], int(n), json.loads(str(n))):
        assert type(stored) is int
        assert stored == 12


def test_a_length_is_the_size_of_its_axis_and_a_kept_number_of_one_for_all_its_uses():
    sizes, axis = Sizes(), Atom(12)
    assert sizes.axis(sizes.length(axis, 12), "here") is axis
    key = ("layer", "num_heads")
    assert sizes.axis(sizes.keep(key, 4), "here") is sizes.axis(sizes.keep(key, 4), "there") is sizes.kept[key]


def test_a_plain_integer_is_the_size_of_something_that_stays():
    axis = Sizes().axis(12, "operator view in 'head'")
    assert (axis.size, axis.frozen) == (12, "operator view in 'head' has the fixed size 12")


def test_a_product_of_sizes_is_that_of_nested_axes_and_a_sum_that_of_joined_ones():
    sizes, heads, inside = Sizes(), Atom(4), Atom(6)
    a, b = sizes.length(heads, 4), sizes.length(inside, 6)
    product, total = sizes.axis(a * b, "here"), sizes.axis(a + b, "here")
    assert isinstance(product, Product)
    assert isinstance(total, Sum)
    assert list(leaves(product)) == list(leaves(total)) == [heads, inside]


def test_a_product_with_a_plain_integer_keeps_that_factor():
    sizes, heads = Sizes(), Atom(4)
    first, second = leaves(sizes.axis(3 * sizes.length(heads, 4), "here"))
    assert (first.size, first.frozen) == (3, "here has the fixed size 3")
    assert second is heads


def test_a_difference_is_what_is_left_of_the_axis():
    sizes, axis = Sizes(), Atom(12)
    rest = sizes.axis(sizes.length(axis, 12) - sizes.keep(("layer", "first"), 5), "here")
    front, back = leaves(axis)
    assert (front.size, back.size) == (5, 7)
    assert resolve(rest) is back
    assert resolve(sizes.kept["layer", "first"]) is front
    assert not front.frozen


def test_a_difference_with_a_plain_integer_keeps_those_positions():
    sizes, axis = Sizes(), Atom(12)
    sizes.axis(sizes.length(axis, 12) - 5, "here")
    assert [atom.frozen for atom in leaves(axis)] == ["here has the fixed size 5", ""]


def test_a_quotient_takes_the_first_factor_away_or_the_last_one_of_that_size():
    sizes, heads, inside = Sizes(), Atom(4), Atom(6)
    width = sizes.length(Product((heads, inside)), 24)
    assert resolve(sizes.axis(width // sizes.keep(("layer", "num_heads"), 4), "here")) is resolve(inside)
    assert resolve(sizes.axis(width // sizes.keep(("layer", "head_dim"), 6), "here")) is resolve(heads)
    assert resolve(sizes.kept["layer", "num_heads"]) is resolve(heads)
    assert resolve(sizes.kept["layer", "head_dim"]) is resolve(inside)


def test_a_half_written_as_a_quotient_is_that_of_an_axis_of_two_equal_parts():
    sizes, axis = Sizes(), Atom(12)
    half = sizes.axis(sizes.length(axis, 12) // 2, "here")
    two, inner = leaves(axis)
    assert (two.size, two.frozen) == (2, "here has the fixed size 2")
    assert resolve(half) is inner
    assert (inner.size, inner.frozen) == (6, "")


@pytest.mark.parametrize(
    ("compute", "told"),
    [(lambda n: n // 5, "12 // 5"), (lambda n: n - 12, "12 - 12"), (lambda n: 30 - n - 20, "18 - 20")],
)
def test_what_no_axis_has_the_size_of_freezes_what_it_was_computed_from(compute, told):
    sizes, axis = Sizes(), Atom(12)
    value = compute(sizes.length(axis, 12))
    if value > 0:
        assert sizes.axis(value, "here").frozen == f"here computes a size as {told}"
        assert all(told in atom.frozen for atom in leaves(axis))
    else:
        assert sizes.axis(value, "here").frozen == f"here has the fixed size {int(value)}"


def test_a_dimension_of_another_ones_size_is_the_same_axis():
    sizes, left, right = Sizes(), Atom(12), Atom(12)
    sizes.require(sizes.length(left, 12), right, "here")
    assert resolve(left) is resolve(right)
    assert not resolve(left).frozen


def test_a_dimension_of_a_plain_size_stays():
    axis = Atom(12)
    Sizes().require(12, axis, "operator view in 'head'")
    assert resolve(axis).frozen == "operator view in 'head' has the fixed size 12"


def test_a_dimension_of_one_position_says_nothing():
    sizes, one = Sizes(), Atom(1)
    sizes.require(1, one, "here")
    assert not one.frozen


def test_axes_already_known_to_have_one_size_are_not_made_the_same():
    """The sides of a shuffle, a x b and b x a, have one size and another order."""
    sizes, heads, inside = Sizes(), Atom(4), Atom(6)
    sizes.require(sizes.length(Product((heads, inside)), 24), Product((inside, heads)), "here")
    assert not heads.frozen
    assert not inside.frozen
    assert resolve(heads) is heads


@pytest.mark.parametrize("compare", [operator.eq, operator.ne])
@pytest.mark.parametrize("turned", [False, True])
def test_a_kept_number_found_equal_to_a_length_changes_with_it(compare, turned):
    sizes, axis = Sizes(), Atom(12)
    pair = [sizes.keep(("layer", "width"), 12), sizes.length(axis, 12)]
    compare(*reversed(pair)) if turned else compare(*pair)
    assert resolve(sizes.kept["layer", "width"]) is resolve(axis)


def test_other_comparisons_say_nothing():
    sizes, axis, other = Sizes(), Atom(12), Atom(12)
    number, n = sizes.keep(("layer", "width"), 12), sizes.length(axis, 12)
    assert number != sizes.length(Atom(8), 8)
    assert number >= n
    assert number == 12
    assert n == sizes.length(other, 12)
    assert not sizes.kept
    assert resolve(axis) is not resolve(other)


def test_a_length_that_is_computed_with_stays():
    sizes, axis, other = Sizes(), Atom(12), Atom(6)
    assert sizes.length(axis, 12) ** -0.5 == 12**-0.5
    assert "test_sizes.py" in axis.frozen
    assert axis.frozen.endswith("computes with its size")
    assert 3 / sizes.length(other, 6) == 0.5
    assert other.frozen


def test_a_kept_number_that_is_computed_with_stays_once_it_is_a_size():
    sizes = Sizes()
    number, unused = (sizes.keep(("layer", name), 6) for name in ("head_dim", "eps"))
    assert number**2 == unused**2 == 36
    axis = sizes.axis(number, "here")
    assert not axis.frozen
    sizes.settle()
    assert axis.frozen.endswith("computes with its size")
    assert list(sizes.kept) == [("layer", "head_dim")]


class Shade(enum.IntEnum):
    LIGHT = 3


class TinyConfig:
    def __init__(self, **values):
        vars(self).update(values)


def module_with(**values):
    module = nn.Module()
    for name, value in values.items():
        setattr(module, name, value)
    return module


def test_integers_are_found_in_attributes_lists_tuples_and_configs():
    config = TinyConfig(hidden_size=12, dropout=0.1, _private=5, tie=True, act="relu", mode=Shade.LIGHT)
    module = module_with(width=12, sizes=[3, 4.0, 5], shape=(6, 1), config=config)
    assert dict(numbers(module)) == {
        "width": 12,
        "sizes[0]": 3,
        "sizes[2]": 5,
        "shape[0]": 6,
        "shape[1]": 1,
        "config.hidden_size": 12,
    }
    deep = module_with(stages=[{"chs": 8, "module": "a"}, {"chs": (4, 5)}], _width=7, _count=3)
    assert dict(numbers(deep)) == {
        "stages[0]['chs']": 8,
        "stages[1]['chs'][0]": 4,
        "stages[1]['chs'][1]": 5,
        "_width": 7,
    }


@pytest.mark.parametrize(
    "value", [True, Shade.LIGHT, 3.0, "3", None, torch.Size([3]), torch.tensor(3), {3: "n"}, {"n": 3.0}]
)
def test_nothing_else_is_taken_for_a_number(value):
    assert list(numbers(module_with(value=value))) == []


def test_what_modules_keep_for_themselves_is_left_alone():
    assert list(numbers(module_with(_calls=3))) == []
    assert dict(numbers(nn.ReLU())) == {}


def test_a_number_is_put_where_it_was_found():
    config = TinyConfig(hidden_size=12)
    module = module_with(width=1, sizes=[1, 2, 3], shape=(4, 5), config=config)
    for place, (path, value) in enumerate(list(numbers(module))):
        assert get(module, path) == value
        put(module, path, 100 + place)
        assert get(module, path) == 100 + place
    assert (module.sizes, module.shape, config.hidden_size) == ([101, 102, 103], (104, 105), 106)


class Shaped(nn.Module):
    """Two linear layers with a reshape by stored numbers after each: `(heads, width of a head)` of both."""

    def __init__(self, first, second):
        super().__init__()
        self.enter, self.middle, self.leave = nn.Linear(5, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.first, self.second = first, second

    def forward(self, x):
        heads, width = self.numbers(self.first)
        x = self.enter(x).view(*x.shape[:-1], heads, width).tanh().flatten(-2)
        heads, width = self.numbers(self.second)
        return self.leave(self.middle(x).view(*x.shape[:-1], heads, width).tanh().flatten(-2))

    def numbers(self, kept):
        return (kept.heads, kept.width) if isinstance(kept, TinyConfig) else kept


def proved(model, kept):
    return check_pruned(model, sequence(), kept)


@pytest.mark.parametrize("kind", [list, tuple, lambda pair: TinyConfig(heads=pair[0], width=pair[1])])
def test_stored_numbers_are_set_in_lists_tuples_and_configs(kind):
    structure, small = proved(Shaped(kind((3, 4)), kind((2, 6))), {3: 2, 4: 3, 2: 1, 6: 5})
    assert sorted(unit.width for unit in structure.units) == [2, 3, 4, 6]
    for kept, wanted in ((small.first, (2, 3)), (small.second, (1, 5))):
        assert type(kept) is type(kind((3, 4)))
        assert tuple(small.numbers(kept)) == wanted
        assert all(type(number) is int for number in small.numbers(kept))


def test_a_number_used_for_two_axes_couples_them():
    shared = TinyConfig(heads=3, width=4)
    structure, small = proved(Shaped(shared, shared), {3: 2, 4: 1})
    assert sorted(unit.width for unit in structure.units) == [3, 4]
    assert small.first is small.second
    assert vars(small.first) == {"heads": 2, "width": 1}


def test_two_numbers_of_one_value_do_not():
    structure, _ = proved(Shaped([3, 4], [3, 4]), {3: 2, 4: 1})
    assert sorted(unit.width for unit in structure.units) == [3, 3, 4, 4]


def test_a_check_of_a_stored_width_sets_it():
    def run(net, x):
        x = net.enter(x)
        if x.shape[-1] != net.width:
            raise ValueError(f"expected {net.width} features")
        return net.leave(x.relu())

    model = Net(run, enter=nn.Linear(5, 12), leave=nn.Linear(12, 3))
    model.width = 12
    structure, small = proved(model, {12: 7})
    assert [size.attribute for size in structure.sizes if not size.module] == ["width"]
    assert small.width == 7


def test_a_width_that_decides_a_scale_stays_and_the_line_is_the_reason():
    def run(net, x):
        x = net.enter(x)
        return net.leave(net.middle(x * x.shape[-1] ** -0.5).relu())

    model = Net(run, enter=nn.Linear(5, 12), middle=nn.Linear(12, 8), leave=nn.Linear(8, 3))
    structure, _ = proved(model, {8: 3})
    assert any("computes with its size" in row.reason and "test_sizes.py" in row.reason for row in structure.frozen)
