"""Polynomials against direct evaluation with Python's own integers."""

from __future__ import annotations

import functools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.core.cost import CostModel, Polynomial, cost_factory, is_factory, is_vectorised, vectorised

UNITS = ("a", "b", "c")
counts = st.fixed_dictionaries({unit: st.integers(0, 50) for unit in UNITS})
monomials = st.lists(st.sampled_from(UNITS), max_size=3).map(lambda units: tuple(sorted(units)))
polynomials = st.dictionaries(monomials, st.integers(-99, 99).filter(bool), max_size=5).map(Polynomial)


def directly(polynomial, kept):
    return sum(c * math.prod(kept[unit] for unit in monomial) for monomial, c in polynomial.terms.items())


def evaluated(polynomial, kept):
    return polynomial.evaluate(UNITS, np.array([[kept[unit] for unit in UNITS]]))[0]


@given(polynomials, polynomials, counts)
def test_sums_and_products_are_those_of_the_values(p, q, kept):
    assert directly(p + q, kept) == directly(p, kept) + directly(q, kept)
    assert directly(p * q, kept) == directly(p, kept) * directly(q, kept)


@given(polynomials, counts)
def test_evaluation_of_an_array_is_direct_evaluation_row_by_row(p, kept):
    rows = [kept, dict.fromkeys(UNITS, 0), dict.fromkeys(UNITS, 1)]
    values = p.evaluate(UNITS, np.array([[row[unit] for unit in UNITS] for row in rows]))
    assert values.tolist() == [directly(p, row) for row in rows]


@given(polynomials, counts, st.sets(st.sampled_from(UNITS)))
def test_substitution_fixes_some_units_and_keeps_the_value(p, kept, fixed):
    rest = p.substitute({unit: kept[unit] for unit in fixed})
    assert rest.units.isdisjoint(fixed)
    assert directly(rest, kept) == directly(p, kept)


@given(polynomials)
def test_a_polynomial_survives_json_and_pickle(p):
    assert Polynomial.from_json(p.to_json()) == p
    assert pickle.loads(pickle.dumps(p)) == p


@given(polynomials)
def test_what_cancels_leaves_no_terms(p):
    assert (p + p * Polynomial.constant(-1)).terms == {}
    assert (p * Polynomial()).terms == {}


def test_values_above_two_to_the_53_are_exact():
    width = 100_003
    cube = Polynomial.of("a") * Polynomial.of("b") * Polynomial.of("c")
    values = cube.evaluate(UNITS, np.full((1, 3), width))
    assert values.dtype == np.int64
    assert int(values[0]) == width**3 > 2**49
    large = cube * Polynomial.constant(1001) + Polynomial.constant(1)
    assert int(evaluated(large, dict.fromkeys(UNITS, width))) == 1001 * width**3 + 1 > 2**53


def test_constants_and_nothing_evaluate_for_any_number_of_candidates():
    assert Polynomial.constant(7).evaluate((), np.zeros((3, 0))).tolist() == [7, 7, 7]
    assert Polynomial.constant(0).terms == {}
    assert Polynomial().evaluate(UNITS, np.zeros((2, 3))).tolist() == [0, 0]
    assert Polynomial.of("a").evaluate(UNITS, np.zeros((0, 3))).shape == (0,)


def test_more_terms_than_fit_one_chunk_all_count():
    names = tuple(f"u{index}" for index in range(700))
    total = Polynomial({(name,): index for index, name in enumerate(names) if index})
    assert total.evaluate(names, np.ones((100, 700))).tolist() == [700 * 699 // 2] * 100


@pytest.fixture
def model():
    macs = Polynomial.of("a") * Polynomial.of("b") * Polynomial.constant(9) + Polynomial.of("a")
    return CostModel({"a": 4, "b": 8}, {"macs": macs})


def test_units_that_are_not_named_stay_dense(model):
    assert model.evaluate(("b",), np.array([[2], [8]]))["macs"].tolist() == [4 * 2 * 9 + 4, 4 * 8 * 9 + 4]
    assert model.dense() == {"macs": 292}


def test_units_may_be_named_in_any_order(model):
    assert model.evaluate(("b", "a"), np.array([[2, 1]]))["macs"].tolist() == [2 * 9 + 1]


def test_a_users_cost_gets_every_kept_count_by_name(model):
    seen = []
    latency = model.with_cost("latency_ms", lambda kept: seen.append(kept) or kept["a"] / 8)
    assert latency.evaluate(("a",), np.array([[2], [3]]))["latency_ms"].tolist() == [0.25, 0.375]
    assert seen == [{"a": 2, "b": 8}, {"a": 3, "b": 8}]
    assert latency.names == ("macs", "latency_ms")
    assert model.names == ("macs",)


reals = st.dictionaries(monomials, st.floats(-1e3, 1e3).filter(bool), max_size=5).map(Polynomial)


@given(reals, counts)
def test_real_coefficients_are_summed_term_after_term(polynomial, kept):
    expected = 0.0
    for monomial, coefficient in polynomial.terms.items():
        expected += coefficient * math.prod(kept[unit] for unit in monomial)
    assert float(evaluated(polynomial, kept)) == expected


@given(reals, st.lists(counts, min_size=1, max_size=9))
def test_a_value_does_not_depend_on_the_candidates_beside_it(polynomial, several):
    rows = np.array([[kept[unit] for unit in UNITS] for kept in several])
    assert polynomial.evaluate(UNITS, rows).tolist() == [float(evaluated(polynomial, kept)) for kept in several]


def test_numbers_are_constants_in_sums_and_products():
    a, b = Polynomial.of("a"), Polynomial.of("b")
    assert sum([a, b]) == a + b
    assert 2 * a + 3 == Polynomial.constant(2) * a + Polynomial.constant(3)
    assert (a * 0.5 + 1).terms == {("a",): 0.5, (): 1}
    assert Polynomial.from_json((0.5 * a).to_json()) == 0.5 * a


@vectorised
def squares(kept, scale=1.0):
    return scale * sum(count**2 for count in kept.values())


def test_a_vectorised_cost_gets_a_column_for_every_unit():
    costs = CostModel({"a": 8, "b": 3}, {"squares": functools.partial(squares, scale=2.0)})
    assert costs.dense() == {"squares": 2.0 * (64 + 9)}
    found = costs.evaluate(("b",), np.array([[3], [1], [2]]))["squares"]
    assert found.tolist() == [2.0 * (64 + 9), 2.0 * (64 + 1), 2.0 * (64 + 4)]


def test_what_a_cost_is_marked_as_holds_through_partial_applications():
    @cost_factory
    def made(structure, model, example, scale):
        return None

    assert is_factory(functools.partial(functools.partial(made, scale=1), scale=2))
    assert is_vectorised(functools.partial(squares, scale=2.0))
    assert not is_factory(squares)
    assert not is_vectorised(made)
    assert not is_factory(lambda structure, model, example: None)
    assert not is_vectorised(object())
