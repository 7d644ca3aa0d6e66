"""Problems whose best front is known: K1's 22 points, and the test functions of the field on a grid.

ZDT1: Zitzler, Deb, Thiele, Comparison of Multiobjective Evolutionary Algorithms, 2000,
https://doi.org/10.1162/106365600568202. DTLZ2: Deb, Thiele, Laumanns, Zitzler, Scalable Multi-Objective Optimization
Test Problems, 2002, https://doi.org/10.1109/CEC.2002.1007032. The opponent is pymoo's NSGA-II and NSGA-III with its
default operators rounded to the grid.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from allocation_instances import K1_FRONT

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front, hypervolume
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace
from autoprune.searchers import make_searcher
from autoprune.testing import trace

UNENDING = {  # searchers of whole fronts that go on until a small space is exhausted
    "random": ("random", {}),
    "evolution": ("evolution", {}),
    "evolution by references": ("evolution", {"selection": "nsga3"}),
    "evolution by swaps": ("evolution", {"swaps": 0.5}),
    "auto": ("auto", {}),
    "optuna's NSGA-II": ("optuna", {}),
    "optuna's NSGA-III": ("optuna", {"sampler": "NSGAIIISampler"}),
    "optuna's TPE": ("optuna", {"sampler": "TPESampler"}),
}
SLOW = {"optuna's TPE"}  # a minute to exhaust 256 networks


def told_by(name, options, problem, evaluate, evaluations, seed=0):
    found: list[Evaluation] = []
    searcher = make_searcher(name, problem, seed=seed, **options)
    trace(searcher, problem, lambda _, c: found.append(evaluate(c)) or found[-1], evaluations)
    return found


@pytest.mark.parametrize(
    "which", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in UNENDING]
)
def test_the_22_points_of_k1_are_found(k1, which):
    name, options = UNENDING[which]
    front = Front.of(told_by(name, options, k1.problem, k1.evaluate, 256), k1.problem.objectives, {})
    assert sorted((e.values["cost"], round(e.values["error"], 9)) for e in front) == [
        (cost, pytest.approx(error)) for cost, error in K1_FRONT
    ]
    assert front.hypervolume((29, 37)) == pytest.approx(657.5)


def test_plans_find_most_of_k1s_front_from_twelve_probes(k1):
    """Its damages add up, its cost is a function the planner cannot look into: 13 probes, 30 plans of 256 networks."""
    found = told_by("additive", {"plans": 31}, k1.problem, k1.evaluate, 44)
    assert Front.of(found, k1.problem.objectives, {}).hypervolume((29, 37)) > 0.98 * 657.5


@dataclass(frozen=True)
class OnAGrid:
    """A test function of u variables in [0, 1] with `levels` values each, every other one counted downwards.

    Downwards, so that the networks of equal levels that searches begin with are not the optimum.
    """

    function: Callable[[np.ndarray], tuple[float, ...]]
    variables: int
    levels: int
    objectives: int

    @property
    def problem(self) -> Problem:
        names = tuple(f"x{i}" for i in range(self.variables))
        space = SearchSpace(names, (tuple(range(self.levels, 0, -1)),) * self.variables)
        size = Polynomial({(name,): 1 for name in names})  # searchers spread over a cost, here one of no consequence
        objectives = tuple(Objective(f"f{i}", "min") for i in range(self.objectives))
        return Problem(space, objectives, CostModel(dict.fromkeys(names, self.levels), {"size": size}))

    def values(self, levels) -> tuple[float, ...]:
        x = np.asarray(levels) / (self.levels - 1)
        return self.function(np.where(np.arange(self.variables) % 2, 1 - x, x))

    def evaluate(self, candidate: Candidate) -> Evaluation:
        return Evaluation(candidate, {f"f{i}": float(v) for i, v in enumerate(self.values(candidate.levels))})

    def ours(self, evaluations, seed, **options) -> np.ndarray:
        """(n, m) values of everything measured."""
        found = told_by("evolution", options, self.problem, self.evaluate, evaluations, seed)
        assert len(found) == evaluations
        return self.problem.losses(found)

    def theirs(self, algorithm, evaluations, seed) -> np.ndarray:
        """(n, m) values of everything pymoo's algorithm measured."""
        from pymoo.core.problem import ElementwiseProblem
        from pymoo.optimize import minimize

        found = []

        class Function(ElementwiseProblem):
            def __init__(inner):
                super().__init__(n_var=self.variables, n_obj=self.objectives, xl=0, xu=self.levels - 1, vtype=int)

            def _evaluate(inner, x, out):
                found.append(self.values(x))
                out["F"] = found[-1]

        minimize(Function(), algorithm, ("n_eval", evaluations), seed=seed)
        return np.array(found[:evaluations])


def zdt1(x):
    g = 1 + 9 * x[1:].mean()
    return x[0], g * (1 - math.sqrt(x[0] / g))


def dtlz2(x):
    a, b = x[:2] * math.pi / 2
    g = ((x[2:] - 0.5) ** 2).sum()
    return (1 + g) * math.cos(a) * math.cos(b), (1 + g) * math.cos(a) * math.sin(b), (1 + g) * math.sin(a)


@pytest.fixture
def pymoo():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pymoo's own, about what it imports
        yield pytest.importorskip("pymoo")


def rounded(pymoo):
    """pymoo's default operators on whole numbers, as its documentation has them."""
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling

    return {
        "sampling": IntegerRandomSampling(),
        "crossover": SBX(prob=0.9, eta=15, vtype=float, repair=RoundingRepair()),
        "mutation": PM(eta=20, vtype=float, repair=RoundingRepair()),
    }


def test_the_fronts_on_the_grids_approach_the_analytic_hypervolumes():
    """120.6667 for ZDT1 within (11, 11), 1.331 - pi / 6 for DTLZ2 within 1.1: what a finer grid would reach."""
    share = np.linspace(0, 1, 33)
    assert hypervolume(np.array([zdt1(np.array([x, *[0] * 29])) for x in share]), (11, 11)) == pytest.approx(
        120.666667, abs=0.03
    )
    share = np.linspace(0, 1, 101)
    front = [dtlz2(np.array([a, b, 0.5])) for a in share for b in share]
    assert hypervolume(np.array(front), (1.1,) * 3) == pytest.approx(1.331 - math.pi / 6, abs=0.01)


@pytest.mark.slow
def test_zdt1_is_solved_on_a_grid_and_not_later_than_by_pymoos_nsga2(pymoo):
    from pymoo.algorithms.moo.nsga2 import NSGA2

    grid = OnAGrid(zdt1, 30, 33, 2)
    for seed in range(2):
        ours = grid.ours(3000, seed, population=40)
        theirs = grid.theirs(NSGA2(pop_size=40, **rounded(pymoo)), 3000, seed)
        for evaluations in (500, 1000, 2000, 3000):
            least = 0.99 * hypervolume(theirs[:evaluations], (11, 11))
            assert hypervolume(ours[:evaluations], (11, 11)) > least, evaluations
        assert hypervolume(ours, (11, 11)) > 120


def test_dtlz2_is_approached_by_references_as_by_pymoos_nsga3(pymoo):
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.util.ref_dirs import get_reference_directions

    grid = OnAGrid(dtlz2, 12, 21, 3)
    directions = get_reference_directions("das-dennis", 3, n_partitions=12)  # 91, the paper's, of a population of 92
    ours = grid.ours(3000, 0, population=92, selection="nsga3")
    theirs = grid.theirs(NSGA3(directions, pop_size=92, **rounded(pymoo)), 3000, 0)
    for evaluations in (500, 1500, 3000):
        least = 0.97 * hypervolume(theirs[:evaluations], (1.1,) * 3)
        assert hypervolume(ours[:evaluations], (1.1,) * 3) > least, evaluations
    assert hypervolume(ours, (1.1,) * 3) > 0.95 * hypervolume(front_of(grid), (1.1,) * 3)


def front_of(grid: OnAGrid) -> np.ndarray:
    """All of DTLZ2's front that the grid has."""
    share = np.linspace(0, 1, grid.levels)
    return np.array([dtlz2(np.array([a, b, 0.5])) for a in share for b in share])


def test_three_objectives_without_a_cost_among_them_are_searched_by_crowding_too():
    grid = OnAGrid(dtlz2, 7, 11, 3)
    found = grid.ours(600, 0)
    assert hypervolume(found, (1.1,) * 3) > 0.8 * hypervolume(front_of(grid), (1.1,) * 3)
