"""Plans against uniform networks, on a network of two units that are useless without each other."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem, Profile
from autoprune.core.space import Candidate, SearchSpace
from autoprune.plan.ladder import uniform_levels
from autoprune.searchers import make_searcher
from autoprune.searchers.common.rivals import UniformRivals
from autoprune.testing import synthetic_problem, trace

WIDTH, UNITS = 10, 4
COUNTS = tuple(range(WIDTH, 0, -1))
NAMES = tuple(f"layer{unit}" for unit in range(UNITS))


@pytest.fixture(autouse=True)
def told(caplog):
    caplog.set_level(logging.INFO, logger="autoprune.searchers.common.rivals")


BY_KL = (Objective("kl", "min"), Objective("nonzeros", "min"))


def chain(objectives=BY_KL):
    """Each layer alone may lose all but one position for next to nothing; two of them may not."""
    costs = CostModel(dict.fromkeys(NAMES, WIDTH), {"nonzeros": Polynomial({(name,): 1 for name in NAMES})})
    profiles = {name: Profile(np.ones(WIDTH) / 10**unit, (WIDTH, 1)) for unit, name in enumerate(NAMES)}
    distortion = next((o.name for o in objectives if o.name == "kl"), None)
    return Problem(SearchSpace(NAMES, (COUNTS,) * UNITS), objectives, costs, (), distortion, profiles)


def damage(levels):
    """Small while one layer alone is thin, and 1 where a second one is below half."""
    kept = np.sort(np.array([COUNTS[level] for level in levels]) / WIDTH)
    return float((1 - kept).mean() / 10 + (kept[1] < 0.5) * (1 - kept[1]))


def answer(problem):
    def scored(_, candidate):
        value = damage(candidate.levels)
        values = {"kl": value, "accuracy": 1 - value, **problem.costs_of(candidate)}
        return Evaluation(candidate, values)

    return scored


def searched(name, problem, evaluations=300, **options):
    searcher = make_searcher(name, problem, **options)
    told = []

    def noted(index, candidate):
        told.append(answer(problem)(index, candidate))
        return told[-1]

    trace(searcher, problem, noted, evaluations)
    return searcher, told


@pytest.mark.parametrize(
    ("name", "options"),
    [("additive", {"probe_levels": 1}), ("additive", {"probe_levels": 2}), ("knapsack", {"relative": False})],
)
@pytest.mark.parametrize("measured", ["kl", "accuracy"])
def test_no_plan_is_left_that_a_uniform_network_of_its_cost_betters(name, options, measured, caplog):
    """Brute force: whatever was planned, the result is as good as the uniform network within that plan's cost."""
    objective = Objective(measured, "min" if measured == "kl" else "max")
    problem = chain((objective, Objective("nonzeros", "min")))
    searcher, told = searched(name, problem, **options)
    assert "plans are worse than the uniform network of equal cost" in searcher.remark
    assert "is worse than the uniform network with nonzeros" in caplog.text
    found = Front.of(told, problem.objectives, {})
    uniform = [Candidate(tuple(row)) for row in uniform_levels(problem.space).tolist()]
    for plan in told:
        rivals = [c for c in uniform if problem.costs_of(c)["nonzeros"] <= plan.values["nonzeros"]]
        within = [e.values["kl"] for e in found if e.values["nonzeros"] <= plan.values["nonzeros"]]
        assert min(within) <= min(damage(c.levels) for c in rivals) + 1e-12


def test_auto_measures_the_uniform_network_where_a_plan_may_be_worse():
    problem = chain()
    searcher, told = searched("auto", problem, 60, rungs=2)
    measured = {e.candidate.levels for e in told}
    assert "worse than the uniform network" in searcher.remark
    assert sum(tuple(row) in measured for row in uniform_levels(problem.space).tolist()) > 2


def test_what_is_worse_is_named_with_both_costs_and_damages(caplog):
    problem = chain()
    rivals = UniformRivals(problem, "nonzeros")
    plan = (9, 9, 0, 0)  # 1, 1, 10 and 10 positions of 10
    rivals.planned(plan)
    (rival,) = rivals.tell([answer(problem)(0, Candidate(plan))])
    assert rival == (5, 5, 5, 5)  # 20 of 22
    assert not caplog.text
    assert list(rivals.tell([answer(problem)(1, Candidate(rival))])) == []
    assert caplog.messages == [
        "the plan with nonzeros = 22 (kl 0.945) is worse than the uniform network with nonzeros = 20 (kl 0.05), which "
        "takes its place"
    ]
    list(rivals.tell([answer(problem)(2, Candidate((6, 6, 6, 6)))]))
    assert len(caplog.messages) == 1  # once for a plan


def test_a_plan_that_failed_is_worse_than_any_uniform_network(caplog):
    problem = chain()
    rivals = UniformRivals(problem, "nonzeros")
    rivals.planned((9, 0, 0, 0))
    (rival,) = rivals.tell([Evaluation(Candidate((9, 0, 0, 0)), status="failed", cause="a test")])
    list(rivals.tell([answer(problem)(0, Candidate(rival))]))
    assert "(which cannot be scored) is worse than the uniform network" in caplog.text


def test_a_plan_that_betters_a_uniform_network_of_more_cost_needs_no_other(caplog):
    problem = chain()
    rivals = UniformRivals(problem, "nonzeros")
    list(rivals.tell([answer(problem)(0, Candidate((7, 7, 7, 7)))]))  # 12, bad
    rivals.planned((9, 6, 6, 9))
    assert list(rivals.tell([Evaluation(Candidate((9, 6, 6, 9)), {"kl": 0.1, "nonzeros": 10})])) == []
    assert not caplog.messages


def test_uniform_networks_are_no_plans_and_have_no_rival():
    problem = chain()
    rivals = UniformRivals(problem, "nonzeros")
    rivals.planned((3, 3, 3, 3))
    assert list(rivals.tell([answer(problem)(0, Candidate((3, 3, 3, 3)))])) == []
    assert rivals.remark == ""


def test_a_knapsack_over_costs_alone_has_nothing_to_compare():
    problem = chain((Objective("nonzeros", "min"),))
    _, told = searched("knapsack", problem, plans=4)
    assert len(told) <= 4


def test_where_damages_add_up_no_plan_is_called_worse(caplog):
    synthetic = synthetic_problem(units=6, levels=5, interaction=0.0)
    searcher = make_searcher("additive", synthetic.problem)
    trace(searcher, synthetic.problem, lambda _, candidate: synthetic.evaluate(candidate), 1000)
    assert searcher.remark == ""
    assert not caplog.messages
