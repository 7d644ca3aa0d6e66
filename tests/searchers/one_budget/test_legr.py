"""The learned global ranking: what a ranking keeps, worked out by hand, and that one search serves many budgets."""

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem, Profile
from autoprune.core.space import SearchSpace
from autoprune.errors import ConfigError
from autoprune.searchers.one_budget.legr import LegrSearch, Ranking
from autoprune.testing import synthetic_problem, trace

NORMS = {"a": [1.0, 2.0, 3.0, 4.0], "b": [10.0, 20.0, 30.0, 40.0]}


def problem():
    """Two units of four positions, one MAC each."""
    space = SearchSpace(("a", "b"), ((4, 3, 2, 1), (4, 3, 2, 1)))
    costs = CostModel({"a": 4, "b": 4}, {"macs": Polynomial({("a",): 1, ("b",): 1})})
    objectives = (Objective("accuracy", "max"), Objective("macs", "min"))
    profiles = {unit: Profile(np.array(norms), (4, 1)) for unit, norms in NORMS.items()}
    return Problem(space, objectives, costs, (), None, profiles)


@pytest.mark.parametrize(
    ("alpha", "kappa", "kept"),
    [
        ((1, 1), (0, 0), (1, 4)),  # norms as they are: all of a before any of b, which keeps one
        ((10, 1), (0, 0), (2, 2)),  # equal scores: the two lowest of both
        ((1, 1), (100, 0), (4, 1)),  # a is always above b
    ],
)
def test_a_ranking_removes_the_lowest_scores_of_all_units(alpha, kappa, kept):
    search = LegrSearch(problem())
    budget = sum(kept)
    levels = search._followed(Ranking(np.array(alpha, float), np.array(kappa, float)), budget)
    assert search._goal.problem.space.kept(levels).tolist() == list(kept)


def test_one_search_ends_with_networks_for_many_budgets():
    synthetic = synthetic_problem(units=4, levels=6, seed=3)
    rng = np.random.default_rng(0)
    pairs = zip(synthetic.problem.space.units, synthetic.problem.space.levels, strict=True)
    profiles = {unit: Profile(rng.lognormal(size=counts[0]), (counts[0], 1)) for unit, counts in pairs}
    synthetic = replace(synthetic, problem=replace(synthetic.problem, profiles=profiles))
    searcher = LegrSearch(synthetic.problem, rankings=40, population=8, plans=12)
    found = trace(searcher, synthetic.problem, lambda _, c: synthetic.evaluate(c), 500)
    shares = synthetic.problem.cost_values(np.array([c.levels for c in found]))["macs"]
    shares = shares / synthetic.problem.reach()["macs"][1]
    assert (shares > 0.9).any()
    assert (shares < 0.3).any()
    assert len(found) <= 52


def test_units_without_norms_stay_dense_and_a_space_of_them_is_an_error():
    whole = problem()
    half = replace(whole, profiles={"a": whole.profiles["a"]})
    searcher = LegrSearch(half, rankings=20, budget=0.75)
    found = searcher.ask(20)
    assert {candidate.levels[1] for candidate in found if candidate != half.space.smallest} == {0}
    with pytest.raises(ConfigError, match="expected the squared norms of units' positions, got none for any unit"):
        LegrSearch(synthetic_problem().problem)
