"""What every searcher does with what is wrong or degenerate: names, options, spaces of one network, flat objectives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from test_searchers import made

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, SpaceError
from autoprune.searchers import SEARCHERS, make_searcher, searcher_options
from autoprune.testing import Synthetic, synthetic_problem, trace

WITH_POPULATION = {name for name in SEARCHERS if "population" in searcher_options(name)}
BREEDS_FROM_ONE = {"genetic", "legr"}  # mutants of the best


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_name_with_a_letter_too_many_names_the_searcher_and_all_others(name):
    with pytest.raises(ConfigError, match=rf"got '{name}e' \(did you mean '{name}'\?") as caught:
        make_searcher(f"{name}e", synthetic_problem().problem)
    assert all(repr(known) in str(caught.value) for known in SEARCHERS)


@pytest.mark.parametrize("name", SEARCHERS)
def test_an_option_a_searcher_does_not_have_names_those_it_has(name):
    with pytest.raises(ConfigError, match=f"expected a known option of searcher '{name}'.*got 'nonsense'") as caught:
        make_searcher(name, synthetic_problem().problem, nonsense=1)
    assert all(repr(option) in str(caught.value) for option in searcher_options(name))


@pytest.mark.parametrize("name", sorted(WITH_POPULATION))
@pytest.mark.parametrize("population", [0, -3, 2.5, True, None])
def test_a_population_that_is_no_count_is_refused(name, population):
    with pytest.raises(ConfigError, match="expected population to be a whole number of at least [12], got"):
        made(name, synthetic_problem().problem, population=population)


@pytest.mark.parametrize("name", sorted(WITH_POPULATION - BREEDS_FROM_ONE))
def test_a_population_of_one_cannot_breed(name):
    with pytest.raises(ConfigError, match="expected population to be a whole number of at least 2, got 1"):
        made(name, synthetic_problem().problem, population=1)


@pytest.mark.parametrize("name", sorted(BREEDS_FROM_ONE))
def test_a_population_of_one_goes_on_by_mutation(name):
    synthetic = synthetic_problem()
    searcher = made(name, synthetic.problem, **{**searcher_options(name), "population": 1})
    assert len(trace(searcher, synthetic.problem, lambda _, c: synthetic.evaluate(c), 40)) == 40


@pytest.mark.parametrize("seeds", [[(0, 0, 9, 0)], [(0, 0, -1, 0)], [(0, 0)], [()], [(0, 1.5, 0, 0)], ["abcd"]])
def test_seeds_outside_the_space_are_errors_that_show_it(seeds):
    problem = synthetic_problem(units=4, levels=4).problem
    with pytest.raises(SpaceError, match=r"expected 4 level indices, each from 0 to \[3, 3, 3, 3\], got \("):
        made("evolution", problem, seeds=seeds)


def test_seeds_outside_the_bounds_are_repaired():
    problem = synthetic_problem(units=4, levels=4, budget=0.5).problem
    asked = made("evolution", problem, seeds=[(0, 0, 0, 0)], rungs=1, population=2).ask(10)
    assert problem.feasible(np.array([c.levels for c in asked])).all()


def test_a_pruner_scores_on_parts_too():
    options = {"over": "sensitivities", "budget": 0.5, "pruner": "MedianPruner"}
    with pytest.raises(ConfigError, match="expected a searcher that scores on the whole selection set, got 'optuna'"):
        made("asha", synthetic_problem().problem, source="optuna", source_options=options)


def answered(name: str, synthetic: Synthetic, answer: Callable[[Candidate], Evaluation], evaluations: int):
    """What a searcher asks for until it ends, with two in flight."""
    searcher = made(name, synthetic.problem)
    return searcher, trace(searcher, synthetic.problem, lambda _, c: answer(c), evaluations, slots=2)


def once_at_each_fidelity(searcher, levels) -> set[Candidate]:
    return {Candidate(levels, fidelity) for fidelity in getattr(searcher, "fidelities", (1.0,))}


@pytest.mark.parametrize("name", SEARCHERS)
def test_bounds_that_admit_one_network_get_that_network_and_the_end(name):
    synthetic = synthetic_problem(units=4, levels=4)
    least = synthetic.problem.reach()["macs"][0]
    synthetic = replace(synthetic, problem=replace(synthetic.problem, bounds=(Bound("macs", "<=", least),)))
    searcher, found = answered(name, synthetic, synthetic.evaluate, 200)
    assert Candidate(synthetic.problem.space.smallest.levels) in found
    assert set(found) <= once_at_each_fidelity(searcher, synthetic.problem.space.smallest.levels)


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_space_of_one_network_gets_that_network_and_the_end(name):
    synthetic = synthetic_problem(units=3, levels=1)
    searcher, found = answered(name, synthetic, synthetic.evaluate, 50)
    assert Candidate((0, 0, 0)) in found
    assert set(found) <= once_at_each_fidelity(searcher, (0, 0, 0))


FLAT = {
    "constant": lambda values: 0.5,
    "zero": lambda values: 0.0,
    "as the cost": lambda values: values["macs"],  # dense is best in both, or worst in both
    "against the cost": lambda values: -values["macs"],
}


@pytest.mark.parametrize("shape", FLAT)
@pytest.mark.parametrize("name", SEARCHERS)
def test_flat_and_correlated_objectives_crash_no_searcher(name, shape):
    """Nor does any warn, for warnings are errors; each goes on, or ends."""
    synthetic = synthetic_problem(units=4, levels=4, objectives=3)

    def answer(candidate):
        exact = synthetic.evaluate(candidate)
        value = FLAT[shape](exact.values)
        return replace(exact, values={**exact.values, "accuracy": value, "error": -value, "kl": abs(value)})

    assert answered(name, synthetic, answer, 40)[1]
