"""Genetic programming over formulas: it finds what there is to find, repeats itself, and measures nothing twice."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from autoprune.errors import ConfigError
from autoprune.run.criterion.evolve import KNOWN, SIZE, FormulaSearch, evolve
from autoprune.run.criterion.formula import SymbolicFormula, of, orders, simplified

RNG = np.random.default_rng(0)
TERMINALS = {
    "weight": (4, 6, 1),
    "inputs": (1, 6, 1),
    "spread": (1, 6, 1),
    "producer": (1, 6, 1),
    "gradient": (1, 6, 1),
}
TABLE = {unit: [{name: RNG.lognormal(size=shape) for name, shape in TERMINALS.items()}] for unit in ("a", "b")}
HIDDEN = of("mul", of("divide", "inputs", "producer"), of("abs", "weight"))


def distance(found):
    """How far an order is from that of the hidden formula, in positions."""
    target = orders(HIDDEN, TABLE)
    return float(sum(np.abs(np.argsort(found[unit]) - np.argsort(target[unit])).sum() for unit in TABLE))


def test_the_known_criteria_come_first():
    seen = []
    evolve(TABLE, lambda found: seen.append(found) or 1.0, evaluations=3)
    expected = [orders(formula, TABLE) for formula in KNOWN.values()][:3]
    assert [{u: o.tolist() for u, o in f.items()} for f in seen] == [
        {u: o.tolist() for u, o in f.items()} for f in expected
    ]


def test_terminals_that_are_not_there_are_left_out():
    table = {"a": [{name: x for name, x in TABLE["a"][0].items() if name != "gradient"}]}
    judged = evolve(table, lambda found: 1.0, evaluations=40)
    assert all("gradient" not in j.formula.terminals for j in judged)


def test_a_hidden_formula_is_found_or_one_that_orders_alike():
    best = evolve(TABLE, distance, evaluations=200, seed=4)[0]
    assert best.fitness == 0
    found, target = orders(best.formula, TABLE), orders(HIDDEN, TABLE)
    assert all(found[unit].tolist() == target[unit].tolist() for unit in TABLE)


def test_no_order_is_measured_twice_and_no_formula_is_long():
    seen = []
    judged = evolve(TABLE, lambda found: seen.append(found) or distance(found), evaluations=120)
    keys = {tuple(np.concatenate([*found.values()]).tolist()) for found in seen}
    assert len(keys) == len(seen) == 120
    assert max(j.formula.size for j in judged) <= SIZE
    assert all(simplified(j.formula) == j.formula for j in judged)


def test_the_same_seed_gives_the_same_formulas_whatever_global_generators_say():
    runs = []
    before = random.getstate()
    for shift, seed in ((1, 0), (2, 0), (1, 5)):
        random.seed(shift)
        state = random.getstate()
        runs.append([j.formula for j in evolve(TABLE, distance, evaluations=60, seed=seed)])
        assert random.getstate() == state
    random.setstate(before)
    assert runs[0] == runs[1] != runs[2]


def test_failures_are_last_and_never_bred_from_while_there_are_others():
    answers = iter([math.nan, math.inf, 0.5, 0.25])
    judged = evolve(TABLE, lambda found: next(answers), evaluations=4)
    assert [j.fitness for j in judged] == [0.25, 0.5, math.inf, math.inf]


def test_of_equally_good_formulas_the_shorter_one_is_better():
    judged = evolve(TABLE, lambda found: 1.0, evaluations=60)
    sizes = [j.formula.size for j in judged]
    assert sizes == sorted(sizes)


def test_it_ends_when_no_order_is_new():
    """Two positions have two orders."""
    table = {"a": [{"weight": np.array([1.0, -2.0])[None, :, None]}]}
    assert len(evolve(table, lambda found: 1.0, evaluations=50)) == 2


def test_progress_is_told_with_the_best_so_far():
    told = []
    evolve(TABLE, distance, evaluations=20, report=lambda done, best: told.append((done, best.fitness)))
    assert [done for done, _ in told] == list(range(1, 21))
    assert [best for _, best in told] == sorted((best for _, best in told), reverse=True)


@pytest.mark.parametrize(("option", "value"), [("evaluations", 0), ("population", 1)])
def test_numbers_too_small_are_errors(option, value):
    with pytest.raises(ConfigError, match=f"expected {option} to be a whole number of at least"):
        evolve(TABLE, distance, **{option: value})


def test_asking_gives_orders_and_telling_judges_them():
    search = FormulaSearch(TABLE)
    assert search.ask() is not None
    search.tell(0.5)
    assert [(j.formula, j.fitness) for j in search.judged] == [(SymbolicFormula("producer"), 0.5)]
