"""Stages of a path: units that may be narrowed until a share of what has to go is saved."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import numpy as np

from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.errors import ConfigError


class Stages:
    """Tells which units are open at a network of a path that begins at the dense network and ends within a budget.

    A stage whose units cannot save any more leaves its share to the next one.

    Raises:
        ConfigError: there is no stage, a pattern matches no unit of its own, or a share is not above 0.
    """

    def __init__(self, problem: Problem, cost: str, budget: float, stages: Mapping[str, float]) -> None:
        if not stages or any(not share > 0 for share in stages.values()):
            raise ConfigError(f"expected stages as patterns of unit names with shares above 0, got {dict(stages)}")
        self._problem, self._cost = problem, cost
        self._units = _units_of(problem.space.units, list(stages))
        dense = problem.reach()[cost][1]
        shares = np.cumsum(list(stages.values())) / sum(stages.values())
        self._ends = [*(dense - shares[:-1] * (dense - budget)).tolist(), budget]

    def open_units(self, at: Levels) -> list[int]:
        """The units to narrow next; none at the end of the path."""
        for units, end in zip(self._units, self._ends, strict=True):
            rows = np.array([at, at])
            rows[1, units] = self._problem.space.sizes[units] - 1
            now, least = self._problem.cost_values(rows, (self._cost,))[self._cost]
            if now > end and least < now:
                return units
        return []


def _units_of(names: tuple[str, ...], patterns: list[str]) -> list[list[int]]:
    """The positions of the units of each stage, which are those whose first matching pattern is the stage's."""
    found: list[list[int]] = [[] for _ in patterns]
    for place, name in enumerate(names):
        first = next((i for i, pattern in enumerate(patterns) if fnmatchcase(name, pattern)), None)
        if first is not None:
            found[first].append(place)
    empty = [pattern for pattern, own in zip(patterns, found, strict=True) if not own]
    if empty:
        raise ConfigError(
            f"expected a unit for the pattern of every stage, got none for {empty}; units are for example "
            f"{', '.join(names[:3])}. `autoprune inspect` lists them all."
        )
    return found
