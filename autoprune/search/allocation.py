"""From a table of damages to levels for a budget: exact where the cost allows it, else by repeated linearisation.

Three cases, told apart by the cost's polynomial (see `hubs`):
- no product of two searched units: one knapsack, exact;
- fixing the levels of a few units leaves no such product: one knapsack for each of their at most 64 joint levels,
  the best of all, exact;
- otherwise, and for a user's cost function: greedy descent, then knapsacks linearised around the current plan.

A first-order knapsack that keeps prices at the dense network's would return plans far below their budget, since a
channel's MACs fall with its neighbours' widths; every plan here is priced at its true cost.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from autoprune.core.cost import Formula
from autoprune.core.problem import Problem
from autoprune.errors import ConfigError
from autoprune.search.greedy import ascend, descend, unit_costs
from autoprune.search.knapsack import Plan, frontier, within
from autoprune.search.linearise import Linearised
from autoprune.search.proposals import Levels

JOINT_LEVELS = 64  # knapsacks solved for one exact frontier


def plan(problem: Problem, distortions: np.ndarray, cost: str, budget: float) -> Levels:
    """Levels of least total damage within all bounds and with `cost` at most `budget`; see `Allocator`."""
    return Allocator(problem, distortions, cost).plan(budget)


class Allocator:
    """Plans for any number of budgets on one cost, from one (u, l) table of damages (see search.distortion).

    With one budget in all a plan is as good as the cost allows (see the module); where other bounds exclude it, it
    is moved within them greedily. Raises ConfigError for a cost the problem does not have or a unit without an
    allowed level.
    """

    def __init__(self, problem: Problem, distortions: np.ndarray, cost: str) -> None:
        if cost not in problem.costs.names:
            raise ConfigError(f"expected a budget on one of the costs {sorted(problem.costs.names)}, got {cost!r}")
        closed = [unit for unit, row in zip(problem.space.units, distortions, strict=True) if np.isinf(row).all()]
        if closed:
            raise ConfigError(f"expected a measured level for every unit, got none for {closed}. Probe them again.")
        self._problem, self._errors, self._cost = problem, distortions, cost
        fixed = hubs(problem, cost)
        self._plans = None if fixed is None else _exact(problem, distortions, cost, fixed)
        self._linearised = Linearised(problem, distortions, cost)

    @property
    def exact(self) -> bool:
        """Whether plans are optimal for the table, up to the knapsack's rounding and apart from other bounds."""
        return self._plans is not None

    @property
    def least(self) -> float:
        """The least cost of any plan."""
        return self._linearised.least if self._plans is None else self._plans[0].cost

    def plan(self, budget: float) -> Levels:
        """Levels for one budget; InfeasibleBudget when no allowed levels are within it and all bounds."""
        exact = None if self._plans is None else np.array(within(self._plans, budget).choice)
        levels = self._linearised.plan(budget) if exact is None else exact
        return tuple(self._within_bounds(levels, budget).tolist())

    def _within_bounds(self, levels: np.ndarray, budget: float) -> np.ndarray:
        if self._problem.feasible(levels[None])[0]:
            return levels
        for bound in self._problem.bounds:
            levels = descend(self._problem, self._errors, bound.name, bound.value, levels)
        return ascend(self._problem, self._errors, self._cost, budget, levels)


def hubs(problem: Problem, cost: str) -> tuple[int, ...] | None:
    """The units to fix so that the cost is a sum of functions of one unit each; () if it is one already.

    None when fixing would take more than 64 joint levels, or when the cost is a user's function. Of several choices
    the one with the fewest joint levels: a minimum vertex cover of the units that share a monomial.
    """
    formula = problem.costs.costs[cost]
    if not isinstance(formula, Formula):
        return None
    index = {unit: u for u, unit in enumerate(problem.space.units) if problem.space.sizes[u] > 1}
    pairs = {pair for monomial in formula.monomials for pair in _pairs(monomial, index)}
    return _cover(sorted(pairs), problem.space.sizes.tolist(), JOINT_LEVELS)


def _pairs(monomial: Sequence[str], index: dict[str, int]) -> list[tuple[int, int]]:
    return list(itertools.combinations(sorted({index[unit] for unit in monomial if unit in index}), 2))


def _cover(pairs: Sequence[tuple[int, int]], sizes: Sequence[int], limit: int) -> tuple[int, ...] | None:
    """The cover of all pairs with the fewest joint levels, at most `limit`; None if there is none.

    One of the first pair's two units is in every cover; each has at least two levels, so the depth is log2(limit).
    """
    if not pairs:
        return ()
    found = []
    for unit in pairs[0]:
        rest = [pair for pair in pairs if unit not in pair]
        cover = _cover(rest, sizes, limit // sizes[unit]) if sizes[unit] <= limit else None
        found += [(unit, *cover)] if cover is not None else []
    return min(found, key=lambda cover: (math.prod(sizes[u] for u in cover), sorted(cover)), default=None)


def _exact(problem: Problem, errors: np.ndarray, cost: str, fixed: Sequence[int]) -> list[Plan]:
    """The frontier over all joint levels of the fixed units, by rising cost; each plan at its true cost."""
    plans: list[Plan] = []
    for joint in itertools.product(*(np.flatnonzero(np.isfinite(errors[unit])) for unit in fixed)):
        base = np.zeros(len(errors), dtype=np.int64)
        base[list(fixed)] = joint
        open_ = errors.copy()
        for unit, level in zip(fixed, joint, strict=True):
            open_[unit] = np.inf
            open_[unit, level] = errors[unit, level]
        here = float(problem.cost_values(base[None])[cost][0])
        prices = unit_costs(problem, base, cost) - here
        plans += [Plan(p.choice, p.cost + here, p.error) for p in frontier(list(prices), list(open_))]
    return _nondominated(plans)


def _nondominated(plans: Sequence[Plan]) -> list[Plan]:
    kept: list[Plan] = []
    for candidate in sorted(plans, key=lambda p: (p.cost, p.error, p.choice)):
        if not kept or candidate.error < kept[-1].error:
            kept.append(candidate)
    return kept
