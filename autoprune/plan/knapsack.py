"""Multiple-choice knapsack: one option for each unit, least error within a budget, for every budget at once.

Staircases of partial plans, merged unit by unit (see search.exact.front); exact for whole and for real costs as long
as they stay short. Departures from the table over integer costs that pruning methods use (SPDY, Frantar and Alistarh
2022, https://arxiv.org/abs/2201.13096; RD_PRUNE, Xu et al. 2023, https://arxiv.org/abs/2308.10438): costs are never
rounded to the nearest bucket, after which plans can exceed their budget; every plan has its true cost; the cheapest
plan is exact whatever the resolution.

Ties, where the front is exact: the lowest error, then the lowest cost, then the lexicographically first choice. Errors
are compared as floats, summed from the last unit to the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.errors import ConfigError
from autoprune.plan.exact.front import Frontier, Plan
from autoprune.plan.exact.solver import Solver
from autoprune.plan.exact.terms import separable


def solve(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], budget: float, *, resolution: float | None = None
) -> Plan:
    """The front's plan of least error whose cost is at most `budget`; arguments as for `frontier`.

    Raises InfeasibleBudget, naming the least reachable cost, when there is none.
    """
    return frontier(costs, errors, resolution=resolution).within(budget)


def frontier(costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], *, resolution: float | None = None) -> Frontier:
    """Every plan that no other one betters in cost or error, by rising cost.

    Args:
        costs: one (l,) array per unit, in any unit of measure; may be negative (differences from a reference).
        errors: one (l,) array per unit, lower is better; an option whose error is not finite is not allowed.
        resolution: width of a cost bucket in the costs' unit. None: exact where costs have at most 32,768 different
            sums by their common divisor or staircases at most 10,000 steps, else 10,000 buckets over the reachable
            range. With buckets a better plan that is cheaper by less than one bucket per unit can be missed; the
            front's `resolution` says whether they were used, and `solver(...).solve` is exact all the same.

    Raises:
        ConfigError: a unit without an allowed option, with a cost that is not finite, or unequal lengths.
    """
    return solver(costs, errors, resolution=resolution).frontier


def solver(costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], *, resolution: float | None = None) -> Solver:
    """Plans for single budgets, exact where the front is not; arguments and errors as for `frontier`."""
    units = _checked(costs, errors)
    if resolution is not None and not resolution > 0:
        raise ConfigError(f"expected a resolution above 0, got {resolution}")
    found = Solver.of(separable([cost for cost, _ in units]), [error for _, error in units], resolution)
    if found is None:
        raise ConfigError(
            f"{sum(len(cost) for cost, _ in units)} options of {len(units)} units are more than the front is made for. "
            "Give each unit fewer options."
        )
    return found


def _checked(costs: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(costs) != len(errors) or len(costs) == 0:
        raise ConfigError(f"expected costs and errors of the same units, got {len(costs)} and {len(errors)} arrays")
    pairs = enumerate(zip(costs, errors, strict=True))
    return [_checked_unit(u, np.asarray(cost, float), np.asarray(error, float)) for u, (cost, error) in pairs]


def _checked_unit(unit: int, cost: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs and errors of one unit, (l,) each, as floats."""
    if cost.shape != error.shape or cost.ndim != 1:
        raise ConfigError(f"unit {unit}: expected as many costs as errors, got shapes {cost.shape} and {error.shape}")
    allowed = np.isfinite(error)
    if not allowed.any():
        raise ConfigError(
            f"unit {unit}: none of its {len(error)} options has a finite error, so nothing can be chosen. Allow one."
        )
    if not np.isfinite(cost[allowed]).all():
        raise ConfigError(f"unit {unit}: expected finite costs, got {cost[allowed].tolist()}")
    return cost, error
