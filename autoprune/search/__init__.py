"""Searchers: who decides which candidate is measured next, each behind the ask/tell contract of core.contracts.

Here: proposals, budget repair, exact allocation, closed-form rules and the searchers. Not here: torch, disk, clock,
global random state: every random choice comes from a generator that the searcher makes from its seed. Imports core,
numpy, deap, moocore; optuna and scikit-learn once their searchers are used. `run` and `config` may import this room.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any

from autoprune.core.contracts import Searcher
from autoprune.core.problem import Problem
from autoprune.errors import ConfigError

SEARCHERS: dict[str, str] = {
    "uniform": "autoprune.search.uniform:UniformSearch",
    "closed_form": "autoprune.search.closed_form_search:ClosedFormSearch",
    "random": "autoprune.search.random_search:RandomSearch",
    "additive": "autoprune.search.additive:AdditiveSearch",
    "evolution": "autoprune.search.evolution:EvolutionSearch",
    "genetic": "autoprune.search.genetic:GeneticSearch",
    "annealing": "autoprune.search.annealing:AnnealingSearch",
    "bees": "autoprune.search.bees:BeesSearch",
    "greedy": "autoprune.search.greedy_search:GreedySearch",
    "legr": "autoprune.search.legr:LegrSearch",
    "halving": "autoprune.search.halving:HalvingSearch",
    "asha": "autoprune.search.asha:AshaSearch",
    "screening": "autoprune.search.screening:ScreeningSearch",
    "racing": "autoprune.search.racing:RacingSearch",
    "evopress": "autoprune.search.evopress:EvoPressSearch",
    "optuna": "autoprune.search.optuna_search:OptunaSearch",
    "spdy": "autoprune.search.spdy:SpdySearch",
    "emo": "autoprune.search.emo:EmoSearch",
    "knapsack": "autoprune.search.knapsack_search:KnapsackSearch",
    "surrogate": "autoprune.search.surrogate:SurrogateSearch",
    "neighbours": "autoprune.search.neighbours:NeighboursSearch",
    "portfolio": "autoprune.search.portfolio:PortfolioSearch",
    "auto": "autoprune.search.auto:AutoSearch",
}


def make_searcher(name: str, problem: Problem, *, seed: int = 0, **options: Any) -> Searcher:
    """The searcher of that name; `options` are its own keyword arguments, checked before it is made.

    Raises ConfigError for an unknown name or option (with the closest known one), InfeasibleBudget for bounds that
    no candidate of the space is within.
    """
    kind = searcher_class(name)
    known = searcher_options(name)
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ConfigError([_unknown(f"option of searcher {name!r}", option, list(known)) for option in unknown])
    searcher: Searcher = kind(problem, seed=seed, **options)
    return searcher


def make_inner_searcher(name: str, problem: Problem, *, seed: int = 0, **options: Any) -> Searcher:
    """As make_searcher, for one that another searcher asks: ConfigError if it scores on parts of the selection set."""
    searcher = make_searcher(name, problem, seed=seed, **options)
    if hasattr(searcher, "fidelities"):
        raise ConfigError(f"expected a searcher that scores on the whole selection set, got {name!r}. Take evolution.")
    return searcher


def searcher_class(name: str) -> Any:
    """The class behind a name of SEARCHERS; imports its module only now."""
    if name not in SEARCHERS:
        raise ConfigError(_unknown("searcher", name, list(SEARCHERS)))
    module, _, attribute = SEARCHERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def searcher_options(name: str) -> dict[str, Any]:
    """The options a searcher has, with their defaults."""
    parameters = inspect.signature(searcher_class(name)).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("problem", "seed")}


def _unknown(what: str, name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"expected a known {what}, one of {known}, got {name!r}.{hint}"
