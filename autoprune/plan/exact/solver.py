"""The best options within any budget, with what is proved about them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.plan.exact.elimination import Elimination, eliminate
from autoprune.plan.exact.front import Frontier, Plan, Rounding, frontier_of, rounding_for, unreachable
from autoprune.plan.exact.lagrange import SLACK, Bound, Core, Hull, improved
from autoprune.plan.exact.relaxed import relaxed
from autoprune.plan.exact.terms import Terms

TRANSITIONS = 4_000_000  # prices looked at in one pass: what takes more is not eliminated
LONGEST, SORTED = 100_000, 1_500_000  # staircases of a single budget may be longer than a front's: there are few
FIRST_LIMIT, NEXT_LIMIT = 1 / 256, 4  # of the gap between a bound and a plan: see `_searched`


@dataclass(frozen=True)
class Solution:
    """A plan, and `bound`: no plan within the budget has a smaller error. `exact` if the plan's own is proved least.

    `method` says in a few words how the plan was found.
    """

    plan: Plan
    bound: float
    exact: bool
    method: str


@dataclass(frozen=True, eq=False)
class Solver:
    """Plans for any number of budgets on one cost.

    `allowed` are the options each unit may take, (k,) indices into those the caller knows; all else counts these alone.
    """

    allowed: tuple[np.ndarray, ...]
    terms: Terms
    elimination: Elimination
    rounding: Rounding

    @staticmethod
    def of(terms: Terms, errors: Sequence[np.ndarray], resolution: float | None = None) -> Solver | None:
        """For a cost and (l,) errors of each unit; an option whose error is not finite is not allowed.

        None where the cost couples too many units for elimination. `resolution` is the width of the front's buckets of
        cost; None: no rounding where staircases stay short, else a ten-thousandth of the reach of costs, or wider where
        memory or time would not do.
        """
        allowed, terms, errors = _allowed(terms, errors)
        elimination = eliminate(terms, errors, TRANSITIONS)
        if elimination is None:
            return None
        return Solver(allowed, terms, elimination, rounding_for(elimination, terms, resolution))

    @functools.cached_property
    def frontier(self) -> Frontier:
        """All plans that no other one betters, as far as they are told apart, at costs summed unit by unit."""
        found = frontier_of(self.elimination, self.rounding)
        costs = self.terms.cost(found.choices)  # an order of sums of our own could be a last bit below a caller's
        later = np.append(np.minimum.accumulate(costs[::-1])[::-1][1:], np.inf)
        kept = np.flatnonzero(costs < later)
        choices = np.stack([a[found.choices[kept, unit]] for unit, a in enumerate(self.allowed)], axis=1)
        return Frontier(costs[kept], found.errors[kept], choices.astype(np.int16), found.resolution)

    @functools.cached_property
    def least(self) -> float:
        """The least cost of any plan."""
        return self._priced(self.hull.narrowest).cost

    def solve(self, budget: float) -> Solution:
        """The best plan within a budget; InfeasibleBudget, naming the least cost, when there is none.

        Exact, unless too many partial plans are as good as the best: then the better of what was found among them and
        the front's plan, with its resolution. Which of several plans of the least error is not said.
        """
        if not budget >= self.least:  # also for NaN
            raise unreachable(budget, self.least)
        bound = self.hull.at(budget)
        plan = self._priced(bound.plan)
        if plan.cost > budget:  # by the rounding of a sum
            plan = self.frontier.within(budget)
        found = self._searched(budget, plan, bound)
        if found.exact:
            return found
        plan = min(found.plan, self.frontier.within(budget), key=lambda p: p.error)
        share = self.frontier.resolution / self.terms.reach
        return Solution(plan, found.bound, self.frontier.exact, f"exact to {100 * share:.2g} % of the range of costs")

    def near(self, budget: float) -> Plan:
        """The plan of the front's convex hull within a budget, in a fraction of the time of the best one.

        The more budgets were asked for, the less each takes. InfeasibleBudget as for `solve`.
        """
        if not budget >= self.least:  # also for NaN
            raise unreachable(budget, self.least)
        plan = self._priced(self.hull.at(budget).plan)
        return plan if plan.cost <= budget else self._priced(self.hull.narrowest)  # above it by the rounding of a sum

    def expect(self, budgets: Sequence[float]) -> None:
        """Works out what plans for these budgets share."""
        self.hull.narrow([budget for budget in budgets if budget >= self.least])

    @functools.cached_property
    def hull(self) -> Hull:
        """The convex hull of all plans."""
        return Hull(self.elimination)

    def _searched(self, budget: float, plan: Plan, hull: Bound) -> Solution:
        """The best plan within the budget, looked for below limits that rise from the bound to the error of `plan`.

        Below a low limit there are few partial plans; where there is no plan at all, the limit is a bound itself.
        """
        rounding = Rounding(LONGEST, self.rounding.width, sorted=SORTED)
        core = Core.of(self.elimination, budget, hull.multiplier)
        least, step = hull.least, (plan.error - hull.least) * FIRST_LIMIT
        while plan.error - least > 4 * SLACK * abs(least):
            limit = min(least + step, plan.error)
            found, proved = improved(self.elimination, rounding, core, limit)
            better = None if found is None else self._priced(found)
            if better is not None and better.cost <= budget:
                return Solution(better, better.error if proved else least, proved, "exact")
            if better is not None or not proved:
                return Solution(plan, least, False, "exact")
            least, step = limit, step * NEXT_LIMIT
        return Solution(plan, plan.error, True, "exact")

    def _priced(self, plan: Plan) -> Plan:
        """A plan by the options the caller knows, its cost summed unit by unit."""
        cost = float(self.terms.cost(np.array([plan.choice]))[0])
        choice = tuple(int(a[option]) for a, option in zip(self.allowed, plan.choice, strict=True))
        return Plan(choice, cost, plan.error)


def relaxed_bound(terms: Terms, errors: Sequence[np.ndarray], plan: Sequence[int], budget: float) -> float:
    """A lower bound on the error within a budget for a cost that cannot be eliminated; tight in cost at (u,) `plan`.

    Lagrangian, on terms that are nowhere above the true ones: coupled along a forest, or not at all where even that
    takes too long. The plan must be within the budget.
    """
    allowed, terms, errors = _allowed(terms, errors)
    reference = [int(np.searchsorted(options, option)) for options, option in zip(allowed, plan, strict=True)]
    tree, sums = (eliminate(relaxed(terms, reference, forest=f), errors, TRANSITIONS) for f in (True, False))
    elimination = tree or sums
    return -np.inf if elimination is None else Hull(elimination).at(budget).least


def _allowed(terms: Terms, errors: Sequence[np.ndarray]) -> tuple[tuple[np.ndarray, ...], Terms, list[np.ndarray]]:
    """The options with a finite error, (k,) indices for each unit, with terms and (k,) errors over these alone."""
    allowed = tuple(np.flatnonzero(np.isfinite(error)) for error in errors)
    finite = [np.asarray(error, float)[options] for error, options in zip(errors, allowed, strict=True)]
    return allowed, terms.restricted(allowed), finite
