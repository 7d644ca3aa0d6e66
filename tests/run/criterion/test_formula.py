"""Formulas: values against numpy by hand, identities, and text that Python reads back as the same value."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.run.criterion.evolve import KNOWN
from autoprune.run.criterion.formula import (
    OPERATORS,
    SymbolicFormula,
    of,
    orders,
    scores,
    simplified,
    value_of,
    written,
)

RNG = np.random.default_rng(0)
ARRAYS = {
    "weight": RNG.standard_normal((4, 5, 2)),
    "inputs": RNG.random((1, 5, 2)),
    "spread": RNG.random((1, 5, 2)),
    "producer": RNG.random((1, 5, 1)),
    "gradient": RNG.random((1, 5, 1)),
}


def random_formula(rng, depth):
    """Any formula of at most that depth."""
    if depth == 0 or rng.random() < 0.2:
        return SymbolicFormula(str(rng.choice(sorted(ARRAYS))))
    name = str(rng.choice(sorted(OPERATORS)))
    return SymbolicFormula(name, tuple(random_formula(rng, depth - 1) for _ in range(OPERATORS[name][0])))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("neg", [2, 0, -8]),
        ("abs", [2, 0, 8]),
        ("square", [4, 0, 64]),
        ("root", [2**0.5, 0, 8**0.5]),
        ("log", [np.log(2), np.log(1e-12), np.log(8)]),
        ("minmax", [0, 0.2, 1]),
        ("zscore", [-4 / 56**0.5 * 3**0.5, -2 / 56**0.5 * 3**0.5, 6 / 56**0.5 * 3**0.5]),
    ],
)
def test_operators_of_one_input_by_hand(name, expected):
    assert value_of(of(name, "x"), {"x": np.array([-2.0, 0.0, 8.0])}) == pytest.approx(expected)


def test_a_divisor_next_to_nothing_gives_zero():
    arrays = {"x": np.array([1.0, 1.0, 1.0]), "y": np.array([2.0, 0.0, 1e-13])}
    assert value_of(of("divide", "x", "y"), arrays).tolist() == [0.5, 0, 0]


@pytest.mark.parametrize("name", ["minmax", "zscore"])
def test_what_is_all_alike_is_scaled_to_zero(name):
    assert value_of(of(name, "x"), {"x": np.full(3, 7.0)}).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("formula", "by_hand"),
    [
        (KNOWN["Wanda"], lambda a: (abs(a["weight"]) * a["inputs"]).sum(axis=(0, 2))),
        (KNOWN["FLAP"], lambda a: (a["weight"] ** 2 * a["spread"] ** 2).sum(axis=(0, 2))),
        (KNOWN["magnitude of producers"], lambda a: 8 * a["producer"].ravel()),
        (
            KNOWN["Pruner-Zero"],
            lambda a: (
                (a["weight"] ** 2).sum(axis=(0, 2))
                * ((a["gradient"] - a["gradient"].min()) / np.ptp(a["gradient"])).ravel()
            ),
        ),
    ],
    ids=["wanda", "flap", "producers", "pruner-zero"],
)
def test_scores_are_sums_over_outputs_columns_and_consumers(formula, by_hand):
    assert scores(formula, [ARRAYS]) == pytest.approx(by_hand(ARRAYS))
    assert scores(formula, [ARRAYS, ARRAYS]) == pytest.approx(2 * by_hand(ARRAYS))


def test_positions_are_ordered_by_falling_score_and_ties_by_position():
    table = {"u": [{"weight": np.array([1.0, 3.0, 1.0, 3.0])[None, :, None]}]}
    found = orders(SymbolicFormula("weight"), table)
    assert found is not None
    assert found["u"].tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("formula", [of("sub", "weight", "weight"), of("log", of("mul", "weight", "infinite"))])
def test_what_is_constant_or_not_finite_is_no_criterion(formula):
    weight = np.arange(3.0)[None, :, None]
    assert orders(formula, {"u": [{"weight": weight, "infinite": np.full_like(weight, np.inf)}]}) is None


@pytest.mark.parametrize(
    ("formula", "shorter"),
    [
        (of("abs", of("mul", "weight", "weight")), of("square", "weight")),
        (of("root", of("square", "weight")), of("abs", "weight")),
        (of("square", of("root", "inputs")), SymbolicFormula("inputs")),
        (of("neg", of("neg", "weight")), SymbolicFormula("weight")),
        (of("log", of("neg", of("abs", "weight"))), of("log", "weight")),
        (of("minmax", of("zscore", of("minmax", "weight"))), of("minmax", "weight")),
        (of("mul", "weight", "inputs"), of("mul", "inputs", "weight")),
        (of("abs", of("add", "weight", "inputs")), of("abs", of("add", "inputs", "weight"))),
    ],
)
def test_identities_make_formulas_shorter(formula, shorter):
    assert simplified(formula) == shorter


def test_simplified_formulas_have_the_value_they_had():
    rng = np.random.default_rng(1)
    for _ in range(300):
        formula = random_formula(rng, 4)
        value, shorter = value_of(formula, ARRAYS), value_of(simplified(formula), ARRAYS)
        assert simplified(formula).size <= formula.size
        if np.isfinite(value).all() and np.abs(value).max() < 1e6:
            # logarithms and divisors next to zero magnify the rounding that identities are true up to
            assert np.median(np.abs(np.broadcast_to(shorter, value.shape) - value)) <= 1e-6 * (1 + np.abs(value).max())


def test_a_written_formula_is_python_for_the_same_value():
    names = {name: function for name, (_, function) in OPERATORS.items() if name not in ("add", "sub", "mul", "neg")}
    rng = np.random.default_rng(2)
    for _ in range(300):
        formula = random_formula(rng, 4)
        with np.errstate(all="ignore"):
            value = eval(written(formula), {**names, **ARRAYS})
        assert np.array_equal(value, value_of(formula, ARRAYS), equal_nan=True)


def test_signs_and_brackets_of_written_formulas():
    nested = of("mul", of("neg", of("add", "a", "b")), of("sub", "c", of("sub", "d", "e")))
    assert written(nested) == "-(a + b) * (c - (d - e))"
    assert written(of("divide", "a", of("mul", "b", "c")), "t.") == "divide(t.a, t.b * t.c)"
