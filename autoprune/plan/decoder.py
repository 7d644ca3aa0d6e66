"""Decodes one number per unit into a network within the budget, so that any sampler can search without constraints.

SPDY (Frantar, Alistarh, SPDY: Accurate Pruning with Speedup Guarantees, ICML 2022, https://arxiv.org/abs/2201.13096): a
unit's damage at level i of l is taken to be c (i / (l - 1))^2, and only its sensitivity c is searched. Departures:
costs are not rounded to the nearest of 10,000 buckets, after which a plan can miss its budget by half a bucket per
unit, but kept as they are, and where a front's costs are put into buckets they are rounded up (see plan.exact); costs
that couple units are planned at their true value; a budget out of reach raises, where the original reads an option of
its table that was never set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.core.problem import Problem, primary_cost
from autoprune.core.space import Levels
from autoprune.errors import ConfigError
from autoprune.plan.allocation import plan


def decode(
    problem: Problem, sensitivities: Sequence[float] | np.ndarray, budget: float, *, cost: str | None = None
) -> Levels:
    """The levels of least damage within a budget and all bounds, given each unit's sensitivity.

    Args:
        problem: the space and its costs.
        sensitivities: (u,) numbers from 0 to 1.
        budget: in the cost's unit, never a share.
        cost: its name; None for the first objective that is a cost.

    Raises:
        ConfigError: not one sensitivity per unit, or one outside 0 to 1.
        InfeasibleBudget: no levels are within the budget; the message names the least cost.
    """
    sizes = problem.space.sizes
    weights = np.asarray(sensitivities, dtype=float)
    if weights.shape != sizes.shape or not ((weights >= 0) & (weights <= 1)).all():
        raise ConfigError(f"expected {len(sizes)} sensitivities from 0 to 1, got {weights.tolist()}")
    damages = np.full((len(sizes), int(sizes.max())), np.inf)
    for unit, size in enumerate(sizes.tolist()):
        damages[unit, :size] = weights[unit] * prior(size)
    return plan(problem, damages, cost or primary_cost(problem), budget)


def prior(levels: int) -> np.ndarray:
    """(l,) damages of a unit of sensitivity 1, from 0 when dense to 1; 0 for a single level."""
    return (np.arange(levels) / max(levels - 1, 1)) ** 2
