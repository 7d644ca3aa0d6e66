from __future__ import annotations

import itertools
import pickle
from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem, Profile
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError, InfeasibleBudget

SPACE = SearchSpace(("a", "b"), ((8, 4, 2), (3, 1)))
COSTS = CostModel({"a": 8, "b": 3, "c": 5}, {"macs": Polynomial.of("a") * Polynomial.of("b") + Polynomial.of("c")})


def problem(*bounds):
    return Problem(SPACE, (Objective("accuracy", "max"), Objective("macs", "min")), COSTS, bounds)


ALL = np.array(list(itertools.product(range(3), range(2))))


def test_costs_are_those_of_the_kept_counts_with_unsearched_units_dense():
    expected = [a * b + 5 for a, b in itertools.product((8, 4, 2), (3, 1))]
    assert problem().cost_values(ALL)["macs"].tolist() == expected


def test_feasible_is_within_all_bounds():
    values = np.array([29, 13, 17, 9, 11, 7])
    assert problem(Bound("macs", "<=", 13)).feasible(ALL).tolist() == (values <= 13).tolist()
    assert problem(Bound("macs", "<=", 13), Bound("macs", "<=", 8)).feasible(ALL).sum() == 1
    assert problem().feasible(ALL).all()


def test_reach_goes_from_the_smallest_to_the_dense_network():
    assert problem().reach() == {"macs": (7, 29)}


def test_losses_flip_the_sign_of_what_is_maximised():
    evaluations = [Evaluation(Candidate((0, 0)), {"accuracy": 0.9, "macs": 29})]
    assert problem().losses(evaluations).tolist() == [[-0.9, 29]]
    assert problem().losses([]).shape == (0, 2)


@pytest.mark.parametrize("bound", [Bound("accuracy", ">=", 0.9), Bound("macs", ">=", 10), Bound("flops", "<=", 10)])
def test_a_budget_on_what_is_no_cost_is_refused(bound):
    with pytest.raises(ConfigError, match=r"upper bound on one of the costs \['macs'\], got " + str(bound)):
        problem(bound).check_bounds()


@pytest.mark.parametrize("value", [6.9, 0.0, -1.0, float("nan")])
def test_a_budget_out_of_reach_names_the_least_cost(value):
    with pytest.raises(InfeasibleBudget, match=r"smallest network of this space has macs = 7 \(0.2414 of dense\)"):
        problem(Bound("macs", "<=", value)).check_bounds()


@pytest.mark.parametrize("value", [7.0, 29.0, 1e9])
def test_a_budget_that_can_be_reached_is_accepted(value):
    problem(Bound("macs", "<=", value)).check_bounds()


def test_profiles_are_read_only_and_go_to_another_process():
    given = {"a": Profile(np.ones(4), (4, 1))}
    found = replace(problem(), profiles=given)
    given["b"] = given["a"]
    assert list(found.profiles) == ["a"]
    assert len(found.profiles) == 1
    with pytest.raises(TypeError, match="expected no change of a read-only mapping"):
        found.profiles["b"] = given["a"]
    assert pickle.loads(pickle.dumps(found)).profiles["a"].shape == (4, 1)
