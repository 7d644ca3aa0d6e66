"""The axis algebra against index arithmetic done by brute force.

An axis is written out as one set of (atom, position) for every index. Whatever the algebra then claims must agree with
what removing positions does to those sets.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.prune.structure.axes import (
    Atom,
    Product,
    Sum,
    concatenate,
    cut_axis,
    factor,
    freeze,
    leaves,
    nest,
    one,
    resolve,
    size,
    spans,
    symbolic_size,
    unify,
)


def written_out(axis):
    """For every index along an axis the (atom, position) pairs it is made of."""
    axis = resolve(axis)
    if isinstance(axis, Atom):
        return [frozenset({(axis, position)}) for position in range(axis.size)]
    parts = [written_out(part) for part in (axis.parts if isinstance(axis, Sum) else axis.factors)]
    if isinstance(axis, Sum):
        return list(itertools.chain.from_iterable(parts))
    return [frozenset().union(*combination) for combination in itertools.product(*parts)]


def kept(axis, removed):
    """(n,) which indices stay when the given positions go; those of frozen atoms and of single positions cannot."""
    return np.array([not (index & removed) for index in movable(axis)], dtype=bool)


def movable(axis):
    """For every index along an axis the (atom, position) pairs that may go."""
    return [{(a, p) for a, p in index if not a.frozen and a.size > 1} for index in written_out(axis)]


def some_removed(data, *axes):
    """About half of all positions of the atoms that the axes are made of."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    return {(atom, p) for axis in axes for atom in leaves(axis) for p in range(atom.size) if rng.random() < 0.5}


def build(data, length, shared):
    """A random axis of a given length; atoms may occur more than once, also in another axis."""
    divisors = [d for d in range(2, length) if length % d == 0]
    kinds = ["atom", *(["sum"] if length > 1 else []), *(["product"] if divisors else [])]
    kind = data.draw(st.sampled_from(kinds))
    if kind == "sum":
        head = data.draw(st.integers(1, length - 1))
        return concatenate([build(data, head, shared), build(data, length - head, shared)])
    if kind == "product":
        outer = data.draw(st.sampled_from(divisors))
        return nest([build(data, outer, shared), build(data, length // outer, shared)])
    known = [atom for atom in shared if atom.size == length]
    if known and data.draw(st.booleans()):
        return data.draw(st.sampled_from(known))
    shared.append(Atom(length, data.draw(st.sampled_from(["", "", "", "given"]))))
    return shared[-1]


lengths = st.sampled_from([1, 2, 3, 4, 6, 8, 12])


@given(st.data(), lengths)
def test_spans_are_where_index_arithmetic_puts_every_position(data, length):
    axis = build(data, length, [])
    expected: dict = {}
    for index, pairs in enumerate(written_out(axis)):
        for pair in pairs:
            expected.setdefault(pair, set()).add(index)
    found: dict = {}
    for atom, span in spans(axis):
        for position, indices in enumerate(span.indices(np.arange(atom.size)).tolist()):
            found.setdefault((atom, position), set()).update(indices)
    assert found == expected


@given(st.data(), lengths)
def test_unified_axes_lose_the_same_indices_whatever_is_removed(data, length):
    shared: list = []
    left, right = build(data, length, shared), build(data, length, shared)
    unify(left, right, "here")
    removed = some_removed(data, left, right)
    assert kept(left, removed).tolist() == kept(right, removed).tolist()


@given(st.data(), st.sampled_from([2, 4, 6, 8, 12]))
def test_pieces_of_a_cut_axis_are_the_axis(data, length):
    axis = build(data, length, [])
    inside = data.draw(st.sets(st.integers(1, length - 1), max_size=3))
    boundaries = [0, *sorted(inside), length]
    pieces = cut_axis(axis, boundaries, "here")
    assert [size(piece) for piece in pieces] == np.diff(boundaries).tolist()
    removed = some_removed(data, axis, *pieces)
    assert np.concatenate([kept(piece, removed) for piece in pieces]).tolist() == kept(axis, removed).tolist()


@given(st.data(), st.sampled_from([4, 6, 8, 12]))
def test_factors_of_an_axis_are_the_axis(data, length):
    axis = build(data, length, [])
    outer = data.draw(st.sampled_from([d for d in range(1, length + 1) if length % d == 0]))
    head, rest = factor(axis, outer, "here")
    assert (size(head), size(rest)) == (outer, length // outer)
    removed = some_removed(data, axis, head, rest)
    nested = np.logical_and.outer(kept(head, removed), kept(rest, removed)).ravel()
    assert nested.tolist() == kept(axis, removed).tolist()


@given(st.data(), lengths)
def test_unifying_again_changes_nothing(data, length):
    shared: list = []
    left, right = build(data, length, shared), build(data, length, shared)
    unify(left, right, "here")
    before = movable(left), movable(right)
    unify(right, left, "again")
    assert (movable(left), movable(right)) == before


@given(st.data(), lengths)
def test_what_is_related_in_a_chain_is_related_at_its_ends(data, length):
    shared: list = []
    first, middle, last = (build(data, length, shared) for _ in range(3))
    unify(first, middle, "here")
    unify(middle, last, "there")
    removed = some_removed(data, first, middle, last)
    left = [kept(axis, removed).tolist() for axis in (first, middle, last)]
    assert left[0] == left[1] == left[2]


@given(st.data(), st.sampled_from([4, 6, 8, 12]))
def test_relating_cutting_and_factoring_in_any_order_agree(data, length):
    """As a network does: several reshapes and splits of one tensor, and other tensors added to the results."""
    shared: list = []
    axes, claims = [build(data, length, shared) for _ in range(3)], []
    for _ in range(data.draw(st.integers(2, 5))):
        action, axis = data.draw(st.sampled_from(["unify", "cut", "factor"])), data.draw(st.sampled_from(axes))
        if action == "unify":
            other = data.draw(st.sampled_from(axes))
            unify(axis, other, "here")
            claims.append((axis, other))
        elif action == "cut":
            place = data.draw(st.integers(1, length - 1))
            claims.append((axis, Sum(tuple(cut_axis(axis, [0, place, length], "here")))))
        else:
            outer = data.draw(st.sampled_from([d for d in range(1, length + 1) if length % d == 0]))
            claims.append((axis, Product(factor(axis, outer, "here"))))
    removed = some_removed(data, *[axis for pair in claims for axis in pair])
    for left, right in claims:
        assert kept(left, removed).tolist() == kept(right, removed).tolist()


def symbolic_count(axis, removed):
    """The symbolic size with the number of positions that stay put in."""
    stay = {id(a): a.size - sum((a, p) in removed for p in range(a.size) if a.size > 1) for a in leaves(axis)}
    return sum(count * math.prod(stay[atom] for atom in atoms) for atoms, count in symbolic_size(axis).items())


@given(st.data(), lengths)
def test_a_symbolic_size_counts_what_stays(data, length):
    axis = build(data, length, [])
    removed = some_removed(data, axis)
    assert symbolic_count(axis, removed) == kept(axis, removed).sum()


@given(st.data(), lengths)
def test_related_axes_have_sizes_that_count_alike(data, length):
    shared: list = []
    left, right = build(data, length, shared), build(data, length, shared)
    unify(left, right, "here")
    removed = some_removed(data, left, right)
    assert symbolic_count(left, removed) == symbolic_count(right, removed)


def test_symbolic_sizes_tell_what_may_change_from_what_stays():
    heads, inside, stays = Atom(4), Atom(6), Atom(5, "given")
    axis = Sum((Product((heads, inside)), stays, heads))
    assert symbolic_size(axis) == {tuple(sorted((id(heads), id(inside)))): 1, (): 5, (id(heads),): 1}
    assert symbolic_size(Product((heads, inside))) == symbolic_size(Product((inside, heads)))
    assert symbolic_size(Product((stays, heads))) == {(id(heads),): 5}
    freeze(heads, "later")
    assert symbolic_size(axis) == {(id(inside),): 4, (): 9}


def test_terms_that_meet_in_a_product_of_sums_are_added_up():
    part, stays = Atom(4), Atom(3, "given")
    axis = Sum((part, stays))
    assert symbolic_size(Product((axis, axis))) == {(id(part),) * 2: 1, (id(part),): 6, (): 9}


def free(*axes):
    return all(not atom.frozen for axis in axes for atom in leaves(axis))


def test_an_atom_becomes_whatever_it_meets():
    for other in (Atom(6), Sum((Atom(2), Atom(4))), Product((Atom(2), Atom(3)))):
        atom = Atom(6)
        unify(other, atom, "here")
        assert written_out(atom) == written_out(other)
        assert free(atom)


def test_sums_are_cut_at_the_union_of_their_boundaries():
    left, right = Sum((Atom(2), Atom(6))), Sum((Atom(5), Atom(3)))
    unify(left, right, "here")
    assert [atom.size for atom in leaves(left)] == [2, 3, 3]
    assert free(left, right)


def test_products_share_their_common_outer_factor():
    left, right = Product((Atom(2), Atom(12))), Product((Atom(6), Atom(4)))
    unify(left, right, "here")
    assert [atom.size for atom in leaves(left)] == [2, 3, 4]
    assert free(left, right)


def test_a_sum_meets_a_product_where_its_parts_are_whole_blocks():
    parts = Sum((Atom(4), Atom(8)))
    blocks = Product((Atom(3), Atom(4)))
    unify(parts, blocks, "here")
    assert free(*[atom for atom in leaves(parts) if atom.size == 4])  # both parts hold the same inner 4
    assert len({atom for atom in leaves(parts) if atom.size == 4}) == 1


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (Product((Atom(2), Atom(9))), Product((Atom(3), Atom(6)))),
        (Product((Atom(4), Atom(3))), Product((Atom(6), Atom(2)))),
        (Product((Atom(3), Atom(4))), Sum((Atom(5), Atom(7)))),
        (Sum((Atom(5), Atom(7))), Product((Atom(3), Atom(4)))),
    ],
)
def test_what_cannot_be_expressed_is_frozen_on_both_sides_with_the_place(left, right):
    unify(left, right, "operator view in 'net.head'")
    reasons = [atom.frozen for axis in (left, right) for atom in leaves(axis)]
    assert all("operator view in 'net.head'" in reason for reason in reasons)


def test_axes_of_two_sizes_are_frozen_and_never_bound():
    left, right = Atom(3), Atom(4)
    unify(left, right, "here")
    assert left.frozen == right.frozen == "here relates axes of 3 and 4 positions"


def test_a_cut_through_blocks_freezes_the_axis_and_its_pieces():
    axis = Product((Atom(3), Atom(4)))
    pieces = cut_axis(axis, [0, 6, 12], "here")
    assert all("here cuts through blocks of 4 positions" in atom.frozen for a in (axis, *pieces) for atom in leaves(a))


def test_a_factor_across_parts_freezes_the_axis_and_what_it_returns():
    for axis in (Sum((Atom(5), Atom(7))), Product((Atom(2), Atom(6)))):
        pair = factor(axis, 3, "here")
        assert all(atom.frozen for a in (axis, *pair) for atom in leaves(a))


def test_freezing_reaches_what_an_atom_turned_out_to_be():
    atom, other = Atom(6), Sum((Atom(2), Atom(4)))
    unify(atom, other, "here")
    freeze(atom, "later")
    assert [leaf.frozen for leaf in leaves(other)] == ["later", "later"]


def test_a_frozen_atom_freezes_what_it_is_bound_to_and_its_parts():
    given_up, other = Atom(6, "first"), Product((Atom(2), Atom(3)))
    unify(given_up, other, "here")
    assert {atom.frozen for atom in leaves(other)} == {"first"}
    assert {atom.frozen for piece in cut_axis(Atom(6, "first"), [0, 2, 6], "here") for atom in leaves(piece)} == {
        "first"
    }
    assert {atom.frozen for part in factor(Atom(6, "first"), 2, "here") for atom in leaves(part)} == {"first"}


def test_the_first_reason_is_kept():
    atom = Atom(2)
    freeze(atom, "first")
    freeze(atom, "second")
    assert atom.frozen == "first"


def test_sums_and_products_of_one_thing_are_that_thing():
    atom = Atom(5)
    assert concatenate([atom]) is atom
    assert concatenate([Atom(0), atom]) is atom
    assert nest([one(), atom, one()]) is atom
    assert size(nest([])) == 1
    assert size(concatenate([])) == 0


def test_nested_sums_and_products_are_flattened():
    atoms = [Atom(n) for n in (2, 3, 4)]
    assert len(concatenate([Sum(tuple(atoms[:2])), atoms[2]]).parts) == 3
    assert len(nest([atoms[0], Product(tuple(atoms[1:]))]).factors) == 3


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_sizes_add_and_multiply(numbers):
    atoms = [Atom(n) for n in numbers]
    assert size(Sum(tuple(atoms))) == sum(numbers)
    assert size(Product(tuple(atoms))) == math.prod(numbers)
