"""Multiple-choice knapsack: one option for each unit, least error within a budget, for every budget at once.

The exact dynamic program over integer costs (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11,
https://doi.org/10.1007/978-3-540-24777-7): D_u(s) = min_k error[u][k] + D_{u+1}(s - cost[u][k]), one table for all
budgets. Departures: costs count from each unit's least, so the cheapest plan is exact whatever the rounding; real
costs are rounded up to buckets, never to the nearest one (as SPDY, Frantar and Alistarh 2022,
https://arxiv.org/abs/2201.13096, does, whose plans can exceed their budget); and every state's plan is priced again
at its true cost, so that a budget is compared with true costs only.

Ties: the lowest error, then the lowest cost, then the lexicographically first choice. Errors are compared as floats,
summed from the last unit to the first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.errors import ConfigError, InfeasibleBudget

EXACT_STATES = 32_768  # integer costs with at most this many states are not rounded at all
BUCKETS = 10_000  # of the reachable range of all other costs


@dataclass(frozen=True)
class Plan:
    """One option index per unit, its true cost and its error."""

    choice: tuple[int, ...]
    cost: float
    error: float


def solve(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], budget: float, *, resolution: float | None = None
) -> Plan:
    """The plan of least error whose true cost is at most `budget`; arguments as for `frontier`.

    Raises InfeasibleBudget, naming the least reachable cost, when there is none.
    """
    return within(frontier(costs, errors, resolution=resolution), budget)


def within(plans: Sequence[Plan], budget: float) -> Plan:
    """The best plan of a frontier for one budget; InfeasibleBudget, naming the least cost, when none is within it."""
    if not budget >= plans[0].cost:  # also for NaN
        raise InfeasibleBudget(
            f"budget {budget:g} cannot be reached: the least reachable cost is {plans[0].cost:g}. Raise the budget "
            "or allow options that cost less."
        )
    return plans[bisect_right(plans, budget, key=lambda plan: plan.cost) - 1]


def frontier(
    costs: Sequence[np.ndarray], errors: Sequence[np.ndarray], *, resolution: float | None = None
) -> list[Plan]:
    """Every plan that no other one betters in cost or error, by rising cost.

    Args:
        costs: one (l,) array per unit, in any unit of measure; may be negative (differences from a reference).
        errors: one (l,) array per unit, lower is better; an option whose error is not finite is not allowed.
        resolution: width of a cost bucket in the costs' unit. None: integer costs are exact as long as that takes at
            most 32,768 states, other costs get 10,000 buckets over the reachable range. Rounded costs can miss a
            better plan that is cheaper by less than one bucket per unit; they never lead over a budget.

    Raises:
        ConfigError: a unit without an allowed option, with a cost that is not finite, or unequal lengths.
    """
    units = _checked(costs, errors)
    buckets = _buckets([cost for cost, _ in units], resolution)
    error, picks = _table(buckets, [e for _, e in units])
    states = np.flatnonzero(np.isfinite(error))
    choices = _trace(buckets, picks, states)
    total = np.zeros(len(states))
    for u, (cost, _) in enumerate(units):
        total += cost[choices[:, u]]
    return _nondominated(choices, total, error[states])


def _checked(costs: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(costs) != len(errors) or len(costs) == 0:
        raise ConfigError(f"expected costs and errors of the same units, got {len(costs)} and {len(errors)} arrays")
    pairs = enumerate(zip(costs, errors, strict=True))
    return [_checked_unit(u, np.asarray(cost, float), np.asarray(error, float)) for u, (cost, error) in pairs]


def _checked_unit(unit: int, cost: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Costs and errors of one unit, (l,) each; options that are not allowed get an infinite error and a dummy cost."""
    if cost.shape != error.shape or cost.ndim != 1:
        raise ConfigError(f"unit {unit}: expected as many costs as errors, got shapes {cost.shape} and {error.shape}")
    allowed = np.isfinite(error)
    if not allowed.any():
        raise ConfigError(
            f"unit {unit}: none of its {len(error)} options has a finite error, so nothing can be chosen. Allow one."
        )
    if not np.isfinite(cost[allowed]).all():
        raise ConfigError(f"unit {unit}: expected finite costs, got {cost[allowed].tolist()}")
    return np.where(allowed, cost, cost[allowed].min()), np.where(allowed, error, np.inf)


def _buckets(costs: Sequence[np.ndarray], resolution: float | None) -> list[np.ndarray]:
    """Costs above each unit's least in whole buckets, (l,) each, rounded up."""
    above = [cost - cost.min() for cost in costs]
    reach = float(sum(cost.max() for cost in above))
    if resolution is None:
        step = _common_divisor(above)
        resolution = step if step and reach / step <= EXACT_STATES else reach / BUCKETS
    if reach == 0:
        return [np.zeros(len(cost), dtype=np.int64) for cost in above]
    if not resolution > 0:
        raise ConfigError(f"expected a resolution above 0, got {resolution}")
    # 1e-9: an exact multiple of the bucket must not cost one more bucket because of the division's last bit
    return [np.ceil(cost / resolution - 1e-9).astype(np.int64) for cost in above]


def _common_divisor(costs: Sequence[np.ndarray]) -> int:
    """The greatest common divisor of whole-numbered costs, 0 if one of them is not whole or all are 0."""
    values = np.concatenate(costs)
    if not (values == np.rint(values)).all() or values.max() > 2**53:
        return 0
    return int(np.gcd.reduce(values.astype(np.int64)))


def _table(buckets: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """(s,) least error at each exact total of buckets (inf: unreachable), and for each unit the option taken there.

    Units run from the last to the first, so that walking the picks from the first finds the first choice of equals.
    """
    best, picks = np.zeros(1), []
    for cost, error in zip(reversed(buckets), reversed(errors), strict=True):
        reached = np.full(len(best) + int(cost.max()), np.inf)
        pick = np.zeros(len(reached), dtype=np.int16)
        for option in np.flatnonzero(np.isfinite(error)):
            span = slice(int(cost[option]), int(cost[option]) + len(best))
            better = error[option] + best < reached[span]
            reached[span][better] = (error[option] + best)[better]
            pick[span][better] = option
        best = reached
        picks.append(pick)
    return best, picks[::-1]


def _trace(buckets: Sequence[np.ndarray], picks: Sequence[np.ndarray], states: np.ndarray) -> np.ndarray:
    """(n, u) choices that lead to each of the (n,) states."""
    choices = np.empty((len(states), len(picks)), dtype=np.int16)
    left = states.copy()
    for u, (cost, pick) in enumerate(zip(buckets, picks, strict=True)):
        choices[:, u] = pick[left]
        left -= cost[choices[:, u]]
    return choices


def _nondominated(choices: np.ndarray, costs: np.ndarray, errors: np.ndarray) -> list[Plan]:
    """Plans by rising cost and falling error; the first of equals by error, cost, choice."""
    order = np.lexsort((*choices.T[::-1], errors, costs))
    errors = errors[order]
    before = np.concatenate([[np.inf], np.minimum.accumulate(errors)[:-1]])
    kept = order[errors < before]
    rows = zip(choices[kept].tolist(), costs[kept].tolist(), errors[errors < before].tolist(), strict=True)
    return [Plan(tuple(choice), cost, error) for choice, cost, error in rows]
