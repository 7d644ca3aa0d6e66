"""Networks with removed branches are built also where others dominate them by their scores before compensation."""

from types import SimpleNamespace

import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace
from autoprune.run.results.members import leading
from autoprune.run.results.solving import BUILT, best_scored

WIDTHS = tuple(range(9, 0, -1))
WHOLE = {(0, 0): 0.0, (4, 0): 1.0, (6, 0): 2.0, (8, 0): 5.0}  # KL by the levels of width and branch
SHALLOW = {(0, 1): 3.0, (4, 1): 4.0, (5, 1): 6.0, (6, 1): 5.0}  # (5, 1) is dominated by (6, 1)


def session_of(widths):
    """A session of one width and one branch with a cost of its own, of which no more is asked than its space."""
    space = SearchSpace(("width", "branch"), (widths, (1, 0)))
    costs = CostModel({"width": widths[0], "branch": 1}, {"macs": Polynomial.of("width") + Polynomial.of("branch")})
    problem = Problem(space, (Objective("kl", "min"), Objective("macs", "min")), costs)
    return SimpleNamespace(space=space, problem=problem, dense_costs=costs.dense(), searches_branches=True)


@pytest.fixture
def session():
    return session_of(WIDTHS)


def scored(session, damages):
    costs = session.problem.costs_of
    return [Evaluation(Candidate(row), {"kl": kl, **costs(Candidate(row))}) for row, kl in damages.items()]


def rows(evaluations):
    return [e.candidate.levels for e in evaluations]


def test_the_front_of_networks_without_some_branches_is_built_too(session):
    found = rows(leading(session, scored(session, {**WHOLE, **SHALLOW}), 8))
    assert found == [(8, 0), (6, 1), (6, 0), (4, 1), (4, 0), (0, 1), (0, 0)]  # by rising cost


def test_both_fronts_are_thinned(session):
    found = rows(leading(session, scored(session, {**WHOLE, **SHALLOW}), 2))
    assert set(found) == {(0, 0), (8, 0), (0, 1), (6, 1)}


def test_without_such_networks_only_the_front_is_built(session):
    assert rows(leading(session, scored(session, {**WHOLE, (7, 0): 9.0}), 8)) == [*WHOLE][::-1]


def test_half_of_the_evaluated_networks_that_are_compared_within_a_budget_lack_branches(session):
    ranked = [(0, 0)] * BUILT + [(1, 1)] * BUILT
    assert best_scored(session, ranked) == [(0, 0)] * (BUILT // 2) + [(1, 1)] * (BUILT // 2)
    assert best_scored(session, [(0, 0)] * 30) == [(0, 0)] * BUILT
    assert best_scored(session, [(1, 1)] * 3 + [(0, 0)] * 30) == [(0, 0)] * (BUILT - 3) + [(1, 1)] * 3


@pytest.mark.parametrize(("searches_branches", "stays"), [(True, 32), (False, 31)])
def test_beside_branches_the_dearest_member_within_a_round_share_stays(searches_branches, stays):
    made = session_of(tuple(range(39, 0, -1)))  # the dense network has 40 MACs, so a share of 5 % has 2
    made.searches_branches = searches_branches
    damages = {40: 0.0, 32: 1.99, 31: 2.0, 2: 10.0}  # of the middle two, that of 32 MACs adds less hypervolume
    found = leading(made, scored(made, {(40 - macs, 0): kl for macs, kl in damages.items()}), 3)
    assert [e.values["macs"] for e in found] == [2, stays, 40]
