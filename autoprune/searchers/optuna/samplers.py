"""Makes Optuna's samplers, checked against the number of objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from autoprune.errors import ConfigError
from autoprune.searchers.optuna.classes import class_of, make

if TYPE_CHECKING:
    import optuna

SINGLE_OBJECTIVE = ("CmaEsSampler",)  # for these, Optuna raises only when it samples


def make_sampler(name: str, options: Mapping[str, Any], seed: int, objectives: int) -> optuna.samplers.BaseSampler:
    """The sampler of a given name; it is seeded if it takes a seed and the options have none.

    Args:
        name: a class of optuna.samplers, or "module:Class" for a user's own.
        options: keyword arguments of its constructor.
        seed: the seed.
        objectives: the number of objectives.

    Raises:
        ConfigError: an unknown name, options that it refuses, or more objectives than it handles.
    """
    class_of("sampler", name)
    if objectives > 1 and name in SINGLE_OBJECTIVE:
        raise ConfigError(
            f"sampler {name!r} handles one objective, got {objectives}. Take one for several, such as TPESampler or "
            "NSGAIISampler, or search at one budget: over: sensitivities with budget: 0.5."
        )
    sampler: optuna.samplers.BaseSampler = make("sampler", name, {"seed": seed}, options)
    return sampler
