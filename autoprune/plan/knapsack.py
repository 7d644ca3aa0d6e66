"""Multiple-choice knapsack: one option for each unit, least damage within a budget, for every budget at once.

Staircases of partial plans, merged unit by unit (see plan.exact.front); exact for integer and real costs as long as
they stay short. Departures from the table over integer costs that pruning methods use (SPDY, Frantar and Alistarh 2022,
https://arxiv.org/abs/2201.13096; RD_PRUNE, Xu et al. 2023, https://arxiv.org/abs/2308.10438): costs are never rounded
to the nearest bucket, after which plans can exceed their budget; every plan has its true cost; the cheapest plan is
exact whatever the resolution.

Ties, where the front is exact: the lowest damage, then the lowest cost, then the lexicographically first choice.
Damages are compared as floats, summed from the last unit to the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.errors import ConfigError
from autoprune.plan.exact.front import Frontier, Plan
from autoprune.plan.exact.solver import Solver
from autoprune.plan.exact.terms import separable


def solve_knapsack(
    costs: Sequence[np.ndarray], damages: Sequence[np.ndarray], budget: float, *, resolution: float | None = None
) -> Plan:
    """The plan of least damage whose cost is at most `budget`; see `frontier` for the arguments.

    Raises:
        InfeasibleBudget: there is no such plan; the message names the least reachable cost.
    """
    return frontier(costs, damages, resolution=resolution).within(budget)


def frontier(
    costs: Sequence[np.ndarray], damages: Sequence[np.ndarray], *, resolution: float | None = None
) -> Frontier:
    """All plans that are not dominated in cost and damage, by rising cost.

    Args:
        costs: one (l,) array per unit, in any unit of measure; may be negative (differences from a reference).
        damages: one (l,) array per unit, lower is better; an option whose damage is not finite is not allowed.
        resolution: width of a cost bucket in the costs' unit. None: exact if costs have at most 32,768 different sums
            by their common divisor or staircases at most 10,000 steps, else 10,000 buckets over the reachable range.
            With buckets a better plan that is cheaper by less than one bucket per unit can be missed; the front's
            `resolution` tells whether they were used, and `solver(...).solve` is exact even so.

    Raises:
        ConfigError: a unit has no allowed option or a cost that is not finite, or the lengths differ.
    """
    return solver(costs, damages, resolution=resolution).frontier


def solver(costs: Sequence[np.ndarray], damages: Sequence[np.ndarray], *, resolution: float | None = None) -> Solver:
    """A solver for single budgets, exact even where the front is not; arguments and errors as for `frontier`."""
    units = _checked(costs, damages)
    if resolution is not None and not resolution > 0:
        raise ConfigError(f"expected a resolution above 0, got {resolution}")
    found = Solver.of(separable([cost for cost, _ in units]), [damage for _, damage in units], resolution)
    if found is None:
        raise ConfigError(
            f"{sum(len(cost) for cost, _ in units)} options of {len(units)} units are too many for the front. "
            "Give each unit fewer options."
        )
    return found


def _checked(costs: Sequence[np.ndarray], damages: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(costs) != len(damages) or len(costs) == 0:
        raise ConfigError(f"expected costs and damages of the same units, got {len(costs)} and {len(damages)} arrays")
    pairs = enumerate(zip(costs, damages, strict=True))
    return [_checked_unit(u, np.asarray(cost, float), np.asarray(damage, float)) for u, (cost, damage) in pairs]


def _checked_unit(unit: int, cost: np.ndarray, damage: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs and damages of one unit, (l,) each, as floats."""
    if cost.shape != damage.shape or cost.ndim != 1:
        raise ConfigError(f"unit {unit}: expected as many costs as damages, got shapes {cost.shape} and {damage.shape}")
    allowed = np.isfinite(damage)
    if not allowed.any():
        raise ConfigError(
            f"unit {unit}: none of its {len(damage)} options has a finite damage, so nothing can be chosen. Allow one."
        )
    if not np.isfinite(cost[allowed]).all():
        raise ConfigError(f"unit {unit}: expected finite costs, got {cost[allowed].tolist()}")
    return cost, damage
