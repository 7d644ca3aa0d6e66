"""The best options within any budget, with what is proved about them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.plan.exact.elimination import Elimination, eliminate
from autoprune.plan.exact.front import Frontier, Plan, Rounding, frontier_of, rounding_for, unreachable
from autoprune.plan.exact.lagrange import SLACK, Core, Hull, HullBound, improved
from autoprune.plan.exact.relaxed import relaxed
from autoprune.plan.exact.terms import Terms

TRANSITIONS = 4_000_000  # largest number of prices in one pass of elimination
LONGEST, SORTED = 100_000, 1_500_000  # limits for a single budget, larger than a front's
FIRST_LIMIT, NEXT_LIMIT = 1 / 256, 4  # shares of the gap between a bound and a plan: see `_searched`


@dataclass(frozen=True)
class Solution:
    """A plan with a proved bound.

    Attributes:
        plan: the plan.
        bound: no plan within the budget has less damage.
        exact: whether the plan's own damage is proved to be the least.
        method: how the plan was found, in a few words.
    """

    plan: Plan
    bound: float
    exact: bool
    method: str


@dataclass(frozen=True, eq=False)
class Solver:
    """Plans for any number of budgets on one cost.

    `allowed` are the (k,) indices of the options that each unit may take; all other attributes count these alone.
    """

    allowed: tuple[np.ndarray, ...]
    terms: Terms
    elimination: Elimination
    rounding: Rounding

    @staticmethod
    def of(terms: Terms, damages: Sequence[np.ndarray], resolution: float | None = None) -> Solver | None:
        """A solver for a cost and (l,) damages of each unit; an option whose damage is not finite is not allowed.

        Returns None if the cost couples too many units for elimination. `resolution` is the width of the front's cost
        buckets; None means no rounding while staircases stay short, else a ten-thousandth of the range of costs, or
        wider if memory or time require it.
        """
        allowed, terms, damages = _allowed(terms, damages)
        elimination = eliminate(terms, damages, TRANSITIONS)
        if elimination is None:
            return None
        return Solver(allowed, terms, elimination, rounding_for(elimination, terms, resolution))

    @functools.cached_property
    def frontier(self) -> Frontier:
        """All plans that are not dominated, up to the resolution, with costs summed unit by unit."""
        found = frontier_of(self.elimination, self.rounding)
        costs = self.terms.cost(found.choices)  # another order of sums could differ in the last bit
        later = np.append(np.minimum.accumulate(costs[::-1])[::-1][1:], np.inf)
        kept = np.flatnonzero(costs < later)
        choices = np.stack([a[found.choices[kept, unit]] for unit, a in enumerate(self.allowed)], axis=1)
        return Frontier(costs[kept], found.damages[kept], choices.astype(np.int16), found.resolution)

    @functools.cached_property
    def least(self) -> float:
        """The least cost of any plan."""
        return self._priced(self.hull.narrowest).cost

    def solve(self, budget: float) -> Solution:
        """The best plan within a budget; InfeasibleBudget, naming the least cost, if there is none.

        Exact unless too many partial plans are as good as the best; then the better of the plan found among them and
        the front's plan, with its resolution. Ties in damage are broken arbitrarily.
        """
        if not budget >= self.least:  # also for NaN
            raise unreachable(budget, self.least)
        bound = self.hull.at(budget)
        plan = self._priced(bound.plan)
        if plan.cost > budget:  # the sums differ by rounding
            plan = self.frontier.within(budget)
        found = self._searched(budget, plan, bound)
        if found.exact:
            return found
        plan = min(found.plan, self.frontier.within(budget), key=lambda p: p.damage)
        share = self.frontier.resolution / self.terms.reach
        return Solution(plan, found.bound, self.frontier.exact, f"exact to {100 * share:.2g} % of the range of costs")

    def near(self, budget: float) -> Plan:
        """The plan of the front's convex hull within a budget, in a fraction of the time of the best one.

        The more budgets were asked for, the less time each takes. Raises InfeasibleBudget like `solve`.
        """
        if not budget >= self.least:  # also for NaN
            raise unreachable(budget, self.least)
        plan = self._priced(self.hull.at(budget).plan)
        return plan if plan.cost <= budget else self._priced(self.hull.narrowest)  # above the budget by rounding only

    def expect(self, budgets: Sequence[float]) -> None:
        """Precomputes what plans for these budgets share."""
        self.hull.narrow([budget for budget in budgets if budget >= self.least])

    @functools.cached_property
    def hull(self) -> Hull:
        """The convex hull of all plans."""
        return Hull(self.elimination)

    def _searched(self, budget: float, plan: Plan, hull: HullBound) -> Solution:
        """The best plan within the budget, searched below limits that rise from the bound to the damage of `plan`.

        Below a low limit there are few partial plans; if no plan exists there, the limit itself is a bound.
        """
        rounding = Rounding(LONGEST, self.rounding.width, sorted=SORTED)
        core = Core.of(self.elimination, budget, hull.multiplier)
        least, step = hull.least, (plan.damage - hull.least) * FIRST_LIMIT
        while plan.damage - least > 4 * SLACK * abs(least):
            limit = min(least + step, plan.damage)
            found, proved = improved(self.elimination, rounding, core, limit)
            better = None if found is None else self._priced(found)
            if better is not None and better.cost <= budget:
                return Solution(better, better.damage if proved else least, proved, "exact")
            if better is not None or not proved:
                return Solution(plan, least, False, "exact")
            least, step = limit, step * NEXT_LIMIT
        return Solution(plan, plan.damage, True, "exact")

    def _priced(self, plan: Plan) -> Plan:
        """A plan in terms of the caller's options, its cost summed unit by unit."""
        cost = float(self.terms.cost(np.array([plan.choice]))[0])
        choice = tuple(int(a[option]) for a, option in zip(self.allowed, plan.choice, strict=True))
        return Plan(choice, cost, plan.damage)


def relaxed_bound(terms: Terms, damages: Sequence[np.ndarray], plan: Sequence[int], budget: float) -> float:
    """A lower bound on the damage within a budget, for a cost that cannot be eliminated; tight in cost at (u,) `plan`.

    Lagrangian, on terms that are nowhere above the true ones: coupled along a forest, or uncoupled if even that takes
    too long. The plan must be within the budget.
    """
    allowed, terms, damages = _allowed(terms, damages)
    reference = [int(np.searchsorted(options, option)) for options, option in zip(allowed, plan, strict=True)]
    tree, sums = (eliminate(relaxed(terms, reference, forest=f), damages, TRANSITIONS) for f in (True, False))
    elimination = tree or sums
    return -np.inf if elimination is None else Hull(elimination).at(budget).least


def _allowed(terms: Terms, damages: Sequence[np.ndarray]) -> tuple[tuple[np.ndarray, ...], Terms, list[np.ndarray]]:
    """The (k,) indices of each unit's options with a finite damage, and terms and (k,) damages over these alone."""
    allowed = tuple(np.flatnonzero(np.isfinite(damage)) for damage in damages)
    finite = [np.asarray(damage, float)[options] for damage, options in zip(damages, allowed, strict=True)]
    return allowed, terms.restricted(allowed), finite
