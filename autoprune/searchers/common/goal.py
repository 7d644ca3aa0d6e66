"""What searches for one network within one budget share: what they minimise, and moves to just below the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Levels
from autoprune.errors import ConfigError
from autoprune.plan.repair import fit

STEPS = 3  # levels that a step moves a unit by at most


@dataclass(frozen=True)
class Goal:
    """The least loss of one objective among the networks whose `cost` is at most `budget`.

    `objective` is its position among the problem's objectives.
    """

    problem: Problem
    objective: int
    cost: str
    budget: float

    def loss(self, losses: Sequence[float]) -> float:
        """The one that counts of (m,) losses."""
        return losses[self.objective]

    def fitted(self, levels: np.ndarray, rng: np.random.Generator) -> Levels:
        """(u,) levels moved at random until they are within budget and bounds and no single step up keeps them so."""
        return tuple(fit(self.problem, levels, rng, self.cost, self.budget).tolist())

    def random(self, rng: np.random.Generator) -> Levels:
        return self.fitted(rng.integers(0, self.problem.space.sizes), rng)

    def swapped(self, levels: Levels, rng: np.random.Generator) -> Levels:
        """A neighbour: one unit moved by up to `STEPS` levels, others moved the other way until the budget is met."""
        sizes = self.problem.space.sizes
        unit = int(rng.choice(np.flatnonzero(sizes > 1))) if (sizes > 1).any() else 0
        moved = np.array(levels)
        step = int(rng.integers(1, STEPS + 1)) * int(rng.choice([-1, 1]))
        moved[unit] = np.clip(moved[unit] + step, 0, sizes[unit] - 1)
        return self.fitted(moved, rng)


def make_goal(problem: Problem, share: float) -> Goal:
    """The first objective that is no cost, at a share of the first cost's dense value, or its bound where that is less.

    A share below what the space can reach becomes the least that can be. ConfigError for a share outside 0 to 1, or
    where everything that is optimised is a cost.
    """
    if not 0 < share <= 1:
        raise ConfigError(f"expected budget to be a share above 0 and at most 1, got {share!r}")
    measured = [i for i, o in enumerate(problem.objectives) if o.name not in problem.costs.names]
    if not measured:
        names = [o.name for o in problem.objectives]
        raise ConfigError(f"expected an objective that is measured, got {names}, which are costs. Add accuracy, say.")
    cost = primary_cost(problem)
    least, most = cost_range(problem, cost)
    return Goal(problem, measured[0], cost, max(least, min(most, share * problem.reach()[cost][1])))
