"""Options with which every searcher reaches all of its phases within thirty evaluations of a small space."""

from typing import Any

QUICK: dict[str, dict[str, Any]] = {
    "additive": {"plans": 8},
    "evolution": {"population": 10, "rungs": 4},
    "genetic": {"population": 10, "parents": 4},
    "annealing": {"chains": 4, "steps": 20},
    "bees": {"sources": 4},
    "legr": {"rankings": 20, "population": 8, "sample": 4, "plans": 8},
    "halving": {"width": 9},
    "screening": {"source_options": {"plans": 2, "probe_levels": 0, "population": 6, "rungs": 2}},
    "evopress": {"offspring": 8, "survivors": (4, 2)},
    "optuna": {"rungs": 4, "sampler_options": {"population_size": 8}},
    "spdy": {"draws": 12, "attempts": 4},
    "emo": {"networks": 12, "population": 6, "plans": 6},
    "knapsack": {"plans": 8},
    "surrogate": {"population": 20, "imagined": 100},
    "neighbours": {"rungs": 4},
    "portfolio": {"first": {"uniform": {}, "additive": {"plans": 4}}},
    "auto": {"plans": 6, "population": 10, "rungs": 4},
}
