"""The goal of a search for one network within one budget, and moves that use up the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Levels
from autoprune.errors import ConfigError
from autoprune.plan.repair import fit_to_budget

SWAP_LEVELS = 3  # largest number of levels that a step moves a unit by


@dataclass(frozen=True)
class Goal:
    """To minimise the loss of one objective among the networks whose `cost` is at most `budget`.

    Attributes:
        problem: the problem to search.
        objective: the position of the objective among the problem's.
        cost: the name of the cost.
        budget: its limit, in its own unit.
    """

    problem: Problem
    objective: int
    cost: str
    budget: float

    def loss(self, losses: Sequence[float]) -> float:
        """The loss of the goal's objective among (m,) losses."""
        return losses[self.objective]

    def fitted(self, levels: np.ndarray, rng: np.random.Generator) -> Levels:
        """(u,) levels moved at random until they are within budget and bounds, with no room for a single step up."""
        return tuple(fit_to_budget(self.problem, levels, rng, self.cost, self.budget).tolist())

    def random(self, rng: np.random.Generator) -> Levels:
        return self.fitted(rng.integers(0, self.problem.space.sizes), rng)

    def swapped(self, levels: Levels, rng: np.random.Generator) -> Levels:
        """A neighbour: one unit moved by up to `SWAP_LEVELS` levels, others moved the other way to meet the budget."""
        sizes = self.problem.space.sizes
        unit = int(rng.choice(np.flatnonzero(sizes > 1))) if (sizes > 1).any() else 0
        moved = np.array(levels)
        step = int(rng.integers(1, SWAP_LEVELS + 1)) * int(rng.choice([-1, 1]))
        moved[unit] = np.clip(moved[unit] + step, 0, sizes[unit] - 1)
        return self.fitted(moved, rng)


def make_goal(problem: Problem, share: float) -> Goal:
    """The first objective that is no cost, within a share of the first cost's dense value or its bound if smaller.

    A share below the reachable range becomes its lower end.

    Raises:
        ConfigError: the share is outside 0 to 1, or every objective is a cost.
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
