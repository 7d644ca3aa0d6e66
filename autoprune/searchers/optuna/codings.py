"""How a sampler's parameters represent a network: as levels, or as sensitivities that are turned into a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Levels
from autoprune.plan.decoder import decode
from autoprune.plan.ladder import coarse_to_fine, ladder
from autoprune.plan.repair import stratified
from autoprune.searchers.common.proposals import Proposals

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Parameters = dict[str, Any]

BUDGET = "budget share"  # contains a space, which no unit's name does


class Coding(Protocol):
    """The mapping from the parameters of a trial to a network."""

    @property
    def attempts(self) -> int:
        """The number of consecutive known proposals after which a random network is taken."""
        ...

    def distributions(self) -> dict[str, BaseDistribution]:
        """The distributions of the parameters, by name."""
        ...

    def levels(self, parameters: Mapping[str, Any]) -> Levels:
        """The network, which may be outside the bounds."""
        ...

    def starts(self, rungs: int) -> list[Parameters]:
        """Up to `rungs` trials to begin with."""
        ...

    def others(self, proposals: Proposals, rng: np.random.Generator) -> list[Parameters]:
        """A few trials that lead to new networks; empty if none are found."""
        ...


@dataclass(frozen=True)
class LevelCoding:
    """One integer for each unit, its level."""

    problem: Problem
    attempts: int = 64

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import IntDistribution

        space = self.problem.space
        return {unit: IntDistribution(0, len(c) - 1) for unit, c in zip(space.units, space.levels, strict=True)}

    def levels(self, parameters: Mapping[str, Any]) -> Levels:
        return tuple(int(parameters[unit]) for unit in self.problem.space.units)

    def parameters(self, levels: Sequence[int]) -> Parameters:
        """The trial that represents a network."""
        return dict(zip(self.problem.space.units, map(int, levels), strict=True))

    def starts(self, rungs: int) -> list[Parameters]:
        """Uniform networks."""
        return [self.parameters(row) for row in coarse_to_fine(ladder(self.problem, rungs))] if rungs else []

    def others(self, proposals: Proposals, rng: np.random.Generator) -> list[Parameters]:
        rows = [tuple(levels.tolist()) for levels in stratified(self.problem, rng, 8)]
        new = [row for row in dict.fromkeys(rows) if not proposals.knows(row)] or proposals.remaining(1)
        return [self.parameters(row) for row in new]


@dataclass(frozen=True)
class SensitivityCoding:
    """A number from 0 to 1 for each unit, and the plan for them within a budget: see plan.decoder.

    `budget` is in the unit of the first cost; None makes it one more number from 0 to 1, a share of the cost's range.
    Every network is within all bounds.
    """

    problem: Problem
    budget: float | None
    attempts: int = 16  # each attempt costs a plan

    def distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution

        return {name: FloatDistribution(0.0, 1.0) for name in self._names}

    def levels(self, parameters: Mapping[str, Any]) -> Levels:
        sensitivities = [parameters[unit] for unit in self.problem.space.units]
        return decode(self.problem, sensitivities, self._budget(parameters))

    def starts(self, rungs: int) -> list[Parameters]:
        """Plans for equally sensitive units, over the range of budgets."""
        alike: Parameters = dict.fromkeys(self.problem.space.units, 0.5)
        if self.budget is not None:
            return [alike] if rungs else []
        shares = range(max(rungs - 1, 1), -1, -1) if rungs else ()
        return [alike | {BUDGET: share / max(rungs - 1, 1)} for (share,) in coarse_to_fine([(s,) for s in shares])]

    def others(self, proposals: Proposals, rng: np.random.Generator) -> list[Parameters]:
        for _ in range(self.attempts):
            drawn = dict(zip(self._names, rng.random(len(self._names)).tolist(), strict=True))
            if not proposals.knows(self.levels(drawn)):
                return [drawn]
        return []

    @property
    def _names(self) -> tuple[str, ...]:
        return (*self.problem.space.units, *(() if self.budget is not None else (BUDGET,)))

    def _budget(self, parameters: Mapping[str, Any]) -> float:
        if self.budget is not None:
            return self.budget
        least, most = cost_range(self.problem, primary_cost(self.problem))
        return least + float(parameters[BUDGET]) * (most - least)
