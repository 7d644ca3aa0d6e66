"""Terminals and operators of written formulas: against the built-in criteria, and against the same on numpy arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autoprune.errors import PluginError
from autoprune.prune.criteria import ConsumerStatistics, UnitStatistics, UnitWeights, flap, l2, taylor, wanda
from autoprune.prune.criteria import symbolic as own
from autoprune.run.criterion.formula import OPERATORS


@pytest.fixture
def unit():
    """Five positions with two columns each in two consumers, one of them centred, and three batches of gradients."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def consumer(outputs, centred):
        x, mean = drawn(40, 10), drawn(10)
        gram = x.T @ x / 40 if centred else x.T @ x / 40 + torch.outer(mean, mean)
        return ConsumerStatistics(drawn(outputs, 10), gram, torch.arange(10).reshape(5, 2), mean, centred)

    weights = UnitWeights((drawn(5, 9), drawn(5, 3)), ())
    return weights, UnitStatistics((consumer(4, True), consumer(6, False)), gradients=drawn(3, 5))


@pytest.mark.parametrize(
    ("formula", "criterion"),
    [
        (lambda t: abs(t.weight) * t.inputs, wanda),
        (lambda t: own.square(t.weight) * own.square(t.spread), flap),
    ],
    ids=["wanda", "flap"],
)
def test_known_formulas_are_the_built_in_criteria(unit, formula, criterion):
    assert torch.allclose(own.summed(formula, *unit), criterion(*unit))


@pytest.mark.parametrize(
    ("formula", "criterion"),
    [(lambda t: t.producer, lambda *unit: l2(*unit)), (lambda t: t.gradient, lambda *unit: taylor(*unit).sqrt())],
    ids=["l2", "taylor"],
)
def test_what_is_known_of_positions_counts_once_for_each_weight_that_reads_them(unit, formula, criterion):
    assert torch.allclose(own.summed(formula, *unit), (4 + 6) * 2 * criterion(*unit).double())


def test_gradients_are_there_only_where_they_were_collected(unit):
    weights, statistics = unit
    assert own.terms(weights, UnitStatistics(statistics.consumers))[0].gradient is None


def test_a_unit_without_consumers_cannot_be_read(unit):
    with pytest.raises(PluginError, match="expected statistics of a consumer, got none. Declare them with @needs"):
        own.terms(unit[0], UnitStatistics(()))


@pytest.mark.parametrize("name", ["square", "root", "log", "minmax", "zscore", "divide"])
@pytest.mark.parametrize("values", [[-2.0, 0.0, 3.0, 1e-13], [5.0, 5.0, 5.0, 5.0], [0.0, 0.0, 0.0, 0.0]])
def test_operators_are_those_that_formulas_are_searched_with(name, values):
    arity, function = OPERATORS[name]
    given = [np.array(values), np.array([1.0, 0.0, -2.0, 1e-13])][:arity]
    found = getattr(own, name)(*map(torch.from_numpy, given)).numpy()
    assert found == pytest.approx(function(*given), rel=1e-12, abs=1e-15)
