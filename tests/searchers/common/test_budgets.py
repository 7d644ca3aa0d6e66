"""Budgets that are spread over a range of costs, by hand."""

import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace
from autoprune.searchers.common.budgets import SpreadBudgets


def chain(*bounds):
    """One unit of 1 to 100 channels, which cost 1 MAC each."""
    space = SearchSpace(("unit",), (tuple(range(100, 0, -1)),))
    objectives = Objective("kl", "min"), Objective("macs", "min")
    return Problem(space, objectives, CostModel({"unit": 100}, {"macs": Polynomial.of("unit")}), bounds)


def measured(damages):
    """Evaluations of networks, by their MACs."""
    return [Evaluation(Candidate((100 - macs,)), {"kl": kl, "macs": float(macs)}) for macs, kl in damages.items()]


def drawn(budgets, n):
    cost, values = budgets.next(n)
    assert cost == "macs"
    return values


def test_budgets_halve_the_range_again_and_again():
    budgets = SpreadBudgets(chain())
    assert drawn(budgets, 3) == [1 + 99 * x for x in (1 / 2, 1 / 4, 3 / 4)]
    assert drawn(budgets, 2) == [1 + 99 * x for x in (1 / 8, 5 / 8)]


def test_budgets_stay_above_those_within_which_no_network_is_much_better_than_the_cheapest():
    budgets = SpreadBudgets(chain(), above_worst=True)
    first = drawn(budgets, 3)  # 50.5, 25.75 and 75.25
    budgets.tell(measured({1: 9.0, 10: 4.0, 25: 3.7, 50: 1.0, 75: 0.1, 100: 0.0}))  # the limit is 0.9 * 4
    assert drawn(budgets, 1) == [pytest.approx(first[1] + (100 - first[1]) / 8)]
    budgets.tell(measured({24: 3.0}))
    assert drawn(budgets, 1) == [pytest.approx(1 + 99 * 5 / 8)]


def test_a_range_in_which_nothing_is_known_or_all_are_alike_is_kept_whole():
    budgets = SpreadBudgets(chain(), above_worst=True)
    drawn(budgets, 1)
    assert drawn(budgets, 1) == [1 + 99 / 4]
    budgets.tell(measured({10: 2.0, 90: 2.0}))
    budgets.tell([Evaluation(Candidate((5,)), {}, cause="it failed")])
    assert drawn(budgets, 1) == [1 + 99 * 3 / 4]


def test_round_shares_descend_until_networks_are_as_bad_as_the_cheapest():
    budgets = SpreadBudgets(chain(Bound("macs", "<=", 88)), above_worst=True)
    groups = budgets.round_shares(3)
    assert next(groups) == ("macs", [85.0, 80.0, 75.0])
    budgets.tell(measured({10: 4.0, 69: 3.7, 71: 1.0, 88: 0.0}))
    assert next(groups) == ("macs", [70.0, 65.0, 60.0])  # within 65 all are bad
    assert next(groups, None) is None
    assert min(drawn(budgets, 7)) > 65
