"""Searchers: each proposes the candidates to measure next, behind the ask/tell contract of core.contracts.

Here: the registry, and the searchers in folders by family. Not here: torch, disk, clock or global random state; every
random choice comes from a generator that the searcher makes from its seed. Imports core, plan, numpy, deap, moocore;
optuna and scikit-learn only when their searchers are used. `run` and `config` may import this room.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

from autoprune.core.contracts import MultiFidelity, Searcher
from autoprune.core.problem import Problem
from autoprune.errors import ConfigError, did_you_mean

SEARCHERS: dict[str, str] = {
    "uniform": "autoprune.searchers.rules.uniform:UniformSearch",
    "closed_form": "autoprune.searchers.rules.search:ClosedFormSearch",
    "random": "autoprune.searchers.fronts.random:RandomSearch",
    "additive": "autoprune.searchers.fronts.additive:AdditiveSearch",
    "evolution": "autoprune.searchers.fronts.evolution:EvolutionSearch",
    "genetic": "autoprune.searchers.one_budget.genetic:GeneticSearch",
    "annealing": "autoprune.searchers.one_budget.annealing:AnnealingSearch",
    "bees": "autoprune.searchers.one_budget.bees:BeesSearch",
    "depth": "autoprune.searchers.rules.depth:DepthSearch",
    "two_stage": "autoprune.searchers.rules.two_stage:TwoStageSearch",
    "greedy": "autoprune.searchers.rules.greedy:GreedySearch",
    "legr": "autoprune.searchers.one_budget.legr:LegrSearch",
    "halving": "autoprune.searchers.partial.halving:HalvingSearch",
    "asha": "autoprune.searchers.partial.asha:AshaSearch",
    "screening": "autoprune.searchers.partial.screening:ScreeningSearch",
    "racing": "autoprune.searchers.partial.racing:RacingSearch",
    "evopress": "autoprune.searchers.partial.evopress:EvoPressSearch",
    "optuna": "autoprune.searchers.optuna.search:OptunaSearch",
    "spdy": "autoprune.searchers.one_budget.spdy:SpdySearch",
    "emo": "autoprune.searchers.fronts.emo:EmoSearch",
    "knapsack": "autoprune.searchers.rules.knapsack:KnapsackSearch",
    "surrogate": "autoprune.searchers.fronts.surrogate:SurrogateSearch",
    "neighbours": "autoprune.searchers.fronts.neighbours:NeighboursSearch",
    "portfolio": "autoprune.searchers.fronts.portfolio:PortfolioSearch",
    "auto": "autoprune.searchers.fronts.auto:AutoSearch",
}


def make_searcher(name: str, problem: Problem, *, seed: int = 0, **options: Any) -> Searcher:
    """Makes the searcher of a given name.

    Args:
        name: a key of SEARCHERS.
        problem: the space, objectives, costs and bounds to search.
        seed: seed of the searcher's random generator.
        **options: keyword arguments of the searcher's class, checked before it is made.

    Returns:
        A searcher for `problem`.

    Raises:
        ConfigError: an unknown name or option; the message names the closest known one.
        InfeasibleBudget: no candidate of the space is within the bounds.
    """
    kind = searcher_class(name)
    if unknown := unknown_options(name, options):
        raise ConfigError(unknown)
    searcher: Searcher = kind(problem, seed=seed, **options)
    return searcher


def make_inner_searcher(name: str, problem: Problem, *, seed: int = 0, **options: Any) -> Searcher:
    """Like make_searcher, for use by another searcher: ConfigError if it scores on parts of the selection set."""
    searcher = make_searcher(name, problem, seed=seed, **options)
    if isinstance(searcher, MultiFidelity):
        raise ConfigError(f"expected a searcher that scores on the whole selection set, got {name!r}. Take evolution.")
    return searcher


def searcher_class(name: str) -> Any:
    """The class of a searcher's name; imports its module on demand."""
    if name not in SEARCHERS:
        raise ConfigError(_unknown("searcher", name, list(SEARCHERS)))
    module, _, attribute = SEARCHERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def unknown_options(name: str, options: Iterable[str]) -> list[str]:
    """A sentence for every option that the searcher of that name does not have."""
    known = searcher_options(name)
    return [_unknown(f"option of searcher {name!r}", key, list(known)) for key in options if key not in known]


def searcher_options(name: str) -> dict[str, Any]:
    """The options of a searcher, with their defaults."""
    parameters = inspect.signature(searcher_class(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("problem", "seed")}


def _unknown(what: str, name: str, known: list[str]) -> str:
    return f"expected a known {what}, one of {known}, got {name!r}{did_you_mean(name, known)}."
