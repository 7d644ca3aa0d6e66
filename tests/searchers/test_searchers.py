"""All searchers: the contract, the registry, and comparisons of their results."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from quick_searchers import QUICK

from autoprune.core.contracts import Searcher
from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import hypervolume
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem, Profile
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.joins import restricted
from autoprune.searchers import SEARCHERS, make_searcher, searcher_options
from autoprune.testing import check_searcher, synthetic_problem, trace

UNSEEDED = {"uniform", "closed_form", "additive", "depth", "two_stage", "greedy", "knapsack"}
ONE_BUDGET = {"genetic", "annealing", "bees", "spdy", "evopress"}  # and legr, until its plans


def made(name, problem, **options):
    """A searcher of a problem that has profiles, which some need."""
    options = {**QUICK.get(name, {}), **options}
    rng = np.random.default_rng(0)
    pairs = zip(problem.space.units, problem.space.levels, strict=True)
    profiles = {unit: Profile(rng.lognormal(size=counts[0]), (counts[0], 1)) for unit, counts in pairs}
    return make_searcher(name, replace(problem, profiles=profiles), **options)


def check(name, evaluations):
    check_searcher(
        lambda problem, seed: made(name, problem, seed=seed), evaluations=evaluations, seeded=name not in UNSEEDED
    )


@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_keeps_the_contract(name):
    check(name, 14 if name in ONE_BUDGET else 30)  # of networks that use up a budget there are few


@pytest.mark.slow
@pytest.mark.parametrize("name", SEARCHERS)
def test_every_searcher_keeps_the_contract_at_length(name):
    check(name, 20 if name in ONE_BUDGET else 40)


@pytest.mark.parametrize("name", sorted(SEARCHERS.keys() - ONE_BUDGET - {"legr"}))
def test_dense_is_among_the_first_proposals_where_the_bounds_allow_it(name):
    problem = synthetic_problem(units=4, levels=4).problem
    searcher = made(name, problem)
    assert isinstance(searcher, Searcher)
    assert problem.space.dense.levels in [candidate.levels for candidate in searcher.ask(12)]


@pytest.mark.parametrize("name", SEARCHERS)
def test_a_budget_out_of_reach_is_an_error_at_once(name):
    problem = synthetic_problem(budget=0.01).problem
    with pytest.raises(InfeasibleBudget, match="the smallest network of this space has macs"):
        made(name, problem)


@pytest.mark.parametrize("name", sorted(ONE_BUDGET))
def test_searches_for_one_budget_find_the_optimum_of_a_small_space_or_nearly(name):
    synthetic = synthetic_problem(units=5, levels=5, seed=2)
    space = synthetic.problem.space
    levels = np.stack(np.unravel_index(np.arange(space.count), space.sizes), axis=1)
    dense = synthetic.problem.reach()["macs"][1]
    within = levels[synthetic.problem.cost_values(levels)["macs"] <= 0.5 * dense]
    best = max(synthetic.evaluate(Candidate(tuple(row))).values["accuracy"] for row in within.tolist())
    told = []
    searcher = make_searcher(name, synthetic.problem, seed=1)
    trace(searcher, synthetic.problem, lambda _, c: told.append(synthetic.evaluate(c)) or told[-1], 150)
    assert all(e.values["macs"] <= 0.5 * dense for e in told)
    assert max(e.values["accuracy"] for e in told) >= best - 0.01


def found_hypervolume(name, synthetic, evaluations, seed):
    """Of accuracy against the share of MACs, within accuracy 0 and all MACs."""
    told = []
    searcher = make_searcher(name, synthetic.problem, seed=seed)
    trace(searcher, synthetic.problem, lambda _, c: told.append(synthetic.evaluate(c)) or told[-1], evaluations)
    losses = synthetic.problem.losses(told) / [1.0, synthetic.problem.costs.dense()["macs"]]
    return hypervolume(losses, (0.0, 1.0))


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_auto_covers_more_than_random_and_uniform_at_equal_evaluations(seed, coupled):
    synthetic = synthetic_problem(units=12, levels=8, seed=seed, interaction=0.5, coupled=coupled)
    auto = found_hypervolume("auto", synthetic, 160, seed)
    assert auto > found_hypervolume("random", synthetic, 160, seed)
    assert auto > found_hypervolume("uniform", synthetic, 160, seed)


def test_evolution_repairs_what_plans_miss_where_damages_do_not_add_up():
    for seed in range(3):
        synthetic = synthetic_problem(units=12, levels=8, seed=seed, interaction=2.0)
        plans = found_hypervolume("additive", synthetic, 160, seed)
        assert found_hypervolume("auto", synthetic, 160, seed) > plans


def test_auto_measures_nothing_twice_and_goes_on_after_the_plans():
    synthetic = synthetic_problem(units=6, levels=5)
    searcher = make_searcher("auto", synthetic.problem, plans=6)
    found = trace(searcher, synthetic.problem, lambda _, c: synthetic.evaluate(c), 120)
    assert len({c.levels for c in found}) == 120
    assert all(len(set(c.levels)) == 1 for c in found[:5])
    ends = [c for c in found[5:40] if np.count_nonzero(c.levels) == 1 and max(c.levels) == 4]
    assert len(ends) == 6  # a probe of each unit at its smallest


def test_auto_has_plans_before_all_units_are_probed():
    """A hundred units, so that probes alone would be a hundred networks."""
    synthetic = synthetic_problem(units=100, levels=8, coupled=True)
    auto, evolution = (found_hypervolume(name, synthetic, 40, 0) for name in ("auto", "evolution"))
    assert auto > evolution


def test_auto_plans_a_front_of_a_hundred_units_before_it_probes_them():
    synthetic = synthetic_problem(units=100, levels=8, coupled=True)
    found = trace(make_searcher("auto", synthetic.problem), synthetic.problem, lambda _, c: synthetic.evaluate(c), 40)
    changed = [np.count_nonzero(candidate.levels) for candidate in found]
    assert changed[:20].count(1) == 0  # eight uniform networks and twelve plans
    assert changed[20:].count(1) == 20


def test_auto_never_makes_a_worker_wait():
    """Two hundred are asked for before an answer, and after each answer one more."""
    synthetic = synthetic_problem(units=12, levels=8)
    searcher = make_searcher("auto", synthetic.problem)
    asked = searcher.ask(200)
    assert len(asked) == 200
    for _ in range(40):
        searcher.tell([synthetic.evaluate(asked.pop(0))])
        new = searcher.ask(1)
        assert len(new) == 1
        asked += new


def test_auto_passes_its_options_on():
    assert searcher_options("auto") == {
        "plans": 24,
        "probe_levels": 1,
        "population": 40,
        "rungs": 12,
        "closed_forms": 0,
    }
    synthetic = synthetic_problem(units=6, levels=5)
    searcher = make_searcher("auto", synthetic.problem, probe_levels=0, rungs=3)
    ladder = searcher.ask(3)
    assert [c.levels for c in ladder] == [(0,) * 6, (4,) * 6, (2,) * 6]
    searcher.tell([synthetic.evaluate(candidate) for candidate in ladder])
    assert all(np.count_nonzero(c.levels) > 1 for c in searcher.ask(10))  # no probes: plans at once


def test_unknown_names_and_options_are_errors_that_name_the_closest():
    problem = synthetic_problem().problem
    with pytest.raises(ConfigError, match=r"one of .*'evolution'.*got 'evolutoin' \(did you mean 'evolution'"):
        make_searcher("evolutoin", problem)
    with pytest.raises(ConfigError) as caught:
        make_searcher("evolution", problem, populaton=3, xyz=2)
    first, second = caught.value.problems
    assert first.endswith("got 'populaton' (did you mean 'population'?).")
    assert second == (
        "expected a known option of searcher 'evolution', one of ['population', 'rungs', 'seeds', 'crossover', "
        "'swaps', 'selection'], got 'xyz'."
    )


def python(code: str, hash_seed: str = "0") -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_proposals_do_not_depend_on_pythons_hash_seed():
    code = (
        "from autoprune.searchers import make_searcher\n"
        "from autoprune.testing import synthetic_problem, trace\n"
        "s = synthetic_problem(units=5, levels=4)\n"
        "print(trace(make_searcher('auto', s.problem, seed=3), s.problem, lambda _, c: s.evaluate(c), 60, slots=3))"
    )
    first, second = python(code, "1"), python(code, "2")
    assert first.count("Candidate") == 60
    assert first == second


def test_optuna_sklearn_and_torch_are_not_imported_until_needed():
    code = (
        "import sys\n"
        "from autoprune.searchers import SEARCHERS, make_searcher, searcher_class\n"
        "from autoprune.testing import synthetic_problem\n"
        "[searcher_class(name) for name in SEARCHERS]\n"
        "make_searcher('auto', synthetic_problem().problem).ask(3)\n"
        "print([name for name in ('optuna', 'sklearn', 'torch') if name in sys.modules])"
    )
    assert python(code).strip() == "[]"


def decoder_problem():
    """Four blocks of a stream, each with attention of some heads and an MLP of some neurons; damages are made up."""
    names = [f"{block}.{part}" for block in range(4) for part in ("heads", "neurons", "attention", "mlp")]
    counts = {"heads": (4, 3, 2, 1), "neurons": (8, 6, 4, 2), "attention": (1, 0), "mlp": (1, 0)}
    levels = [counts[name.partition(".")[2]] for name in names]
    of = {name: Polynomial.of(name) for name in names}
    blocks = [(of[f"{b}.heads"] * of[f"{b}.attention"], of[f"{b}.neurons"] * of[f"{b}.mlp"]) for b in range(4)]
    macs = sum((2 * heads + neurons for heads, neurons in blocks), Polynomial.constant(8))
    widths = {name: own[0] for name, own in zip(names, levels, strict=True)}
    objectives = Objective("kl", "min"), Objective("macs", "min")
    return Problem(SearchSpace(tuple(names), tuple(levels)), objectives, CostModel(widths, {"macs": macs}))


def least_divergence(problem, price, evaluations, *, weights=None, divergence=lambda total: total):
    """The least KL that `auto` finds within 80, 65 and 50 % of the MACs where removing a branch costs `price`.

    `weights` are factors of the units' damages, and `divergence` makes the KL of their sum.
    """

    def answer(number, candidate):
        shares = zip(problem.space.units, problem.space.shares, candidate.levels, strict=True)
        removed = {unit: 1 - share[level] for unit, share, level in shares}
        own = {u: x * price if u.endswith(("attention", "mlp")) else x**2 for u, x in removed.items()}
        total = sum(damage * (weights or {}).get(unit, 1.0) for unit, damage in own.items())
        return Evaluation(candidate, {"kl": divergence(total), **problem.costs_of(candidate)})

    told = []
    searcher = make_searcher("auto", problem, plans=12, rungs=6)
    trace(searcher, problem, lambda n, c: told.append(answer(n, c)) or told[-1], evaluations)
    dense = problem.costs.dense()["macs"]
    return [min(e.values["kl"] for e in told if e.values["macs"] <= s * dense) for s in (0.8, 0.65, 0.5)]


@pytest.mark.parametrize("price", [100.0, 0.4])
def test_auto_over_depth_and_width_is_not_worse_than_over_widths_alone(price):
    problem = decoder_problem()
    widths = np.flatnonzero([counts != (1, 0) for counts in problem.space.levels])
    alone = least_divergence(restricted(problem, widths, problem.space.dense.levels), price, 60)
    both = least_divergence(problem, price, 60)
    assert all(x <= y + 1e-9 for x, y in zip(both, alone, strict=True))
    assert price > 1 or both[2] < alone[2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_depth_is_of_use_where_damages_do_not_add_up_and_networks_are_soon_as_bad_as_guessing(seed):
    problem = decoder_problem()
    damages = np.random.default_rng(seed).lognormal(-1.0, 1.0, len(problem.space.units))
    weights = dict(zip(problem.space.units, damages, strict=True))
    changes = {"weights": weights, "divergence": lambda total: 4 * (1 - np.exp(-(total + 0.5 * total**2) / 4))}
    widths = np.flatnonzero([counts != (1, 0) for counts in problem.space.levels])
    alone = least_divergence(restricted(problem, widths, problem.space.dense.levels), 1.0, 60, **changes)
    both = least_divergence(problem, 1.0, 60, **changes)
    assert all(x <= 1.02 * y for x, y in zip(both, alone, strict=True))
    assert both[2] < 0.98 * alone[2]
