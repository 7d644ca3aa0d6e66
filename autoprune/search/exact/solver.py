"""The best options within any budget, with what is proved about them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.search.exact.elimination import Elimination, eliminate
from autoprune.search.exact.front import Frontier, Plan, Rounding, frontier_of, rounding_for
from autoprune.search.exact.lagrange import SLACK, Bound, improved, lower_bound
from autoprune.search.exact.relaxed import relaxed
from autoprune.search.exact.terms import Terms

TRANSITIONS = 500_000  # prices looked at in one pass: what takes more is not eliminated
REFINEMENTS = 4
REFINED_STEPS, REFINED_SORTED = 100_000, 1_500_000  # longer staircases than a front's: a bound leaves few plans
REFINED = 200_000  # transitions up to which single budgets are refined: about a second each


@dataclass(frozen=True)
class Solution:
    """A plan, and `bound`: no plan within the budget has a smaller error. `exact` if the plan's own is proved least."""

    plan: Plan
    bound: float
    exact: bool


@dataclass(frozen=True, eq=False)
class Solver:
    """Plans for any number of budgets on one cost, from the front of all of them.

    `allowed` are the options each unit may take, (k,) indices into those the caller knows.
    """

    allowed: tuple[np.ndarray, ...]
    terms: Terms
    elimination: Elimination
    rounding: Rounding

    @staticmethod
    def of(terms: Terms, errors: Sequence[np.ndarray], resolution: float | None = None) -> Solver | None:
        """For a cost and (l,) errors of each unit; an option whose error is not finite is not allowed.

        None where the cost couples too many units for elimination. `resolution` is the width of the buckets of cost;
        None: no rounding where staircases stay short, else a ten-thousandth of the reach of costs, or wider where
        memory or time would not do.
        """
        allowed, terms, errors = _allowed(terms, errors)
        elimination = eliminate(terms, errors, TRANSITIONS)
        if elimination is None:
            return None
        rounding = rounding_for(elimination, terms.reach, terms.divisor, resolution)
        return None if rounding is None else Solver(allowed, terms, elimination, rounding)

    @functools.cached_property
    def frontier(self) -> Frontier:
        """All plans that no other one betters, as far as they are told apart, at costs summed unit by unit."""
        found = frontier_of(self.elimination, self.rounding)
        costs = self.terms.cost(found.choices)  # an order of sums of our own could be a last bit below a caller's
        later = np.append(np.minimum.accumulate(costs[::-1])[::-1][1:], np.inf)
        kept = np.flatnonzero(costs < later)
        choices = np.stack([a[found.choices[kept, unit]] for unit, a in enumerate(self.allowed)], axis=1)
        return Frontier(costs[kept], found.errors[kept], choices.astype(np.int16), found.resolution)

    @property
    def least(self) -> float:
        """The least cost of any plan."""
        return self.frontier[0].cost

    def method(self, dense: float) -> str:
        """What all plans are, in a few words; costs as a share of the `dense` one."""
        if self.frontier.exact:
            return "exact"
        return f"exact to {100 * self.frontier.resolution / dense:.2g} % of the dense cost"

    def solve(self, budget: float) -> Solution:
        """The best plan within a budget; InfeasibleBudget, naming the least cost, when there is none."""
        plan = self.frontier.within(budget)
        if self.frontier.exact:
            return Solution(plan, plan.error, exact=True)
        bound = lower_bound(self.elimination, budget)
        if _meets(plan, bound.error):
            return Solution(plan, plan.error, exact=True)
        if self.elimination.transitions > REFINED:
            return Solution(plan, bound.error, exact=False)
        best, proved = self._refined(budget, plan, bound)
        return Solution(best, best.error if proved else bound.error, proved)

    def _refined(self, budget: float, plan: Plan, bound: Bound) -> tuple[Plan, bool]:
        """The best plan found, and whether it is proved the best; a better plan leaves fewer to look at next time."""
        rounding = Rounding(REFINED_STEPS, self.rounding.width, sorted=REFINED_SORTED)
        for _ in range(REFINEMENTS):
            found, proved = improved(self.elimination, rounding, budget, plan.error, bound)
            if found is None:
                return plan, proved
            cost = float(self.terms.cost(np.array([found.choice]))[0])
            if cost > budget:
                return plan, False  # above the budget by the rounding of the sum alone
            choice = tuple(int(a[option]) for a, option in zip(self.allowed, found.choice, strict=True))
            plan = Plan(choice, cost, found.error)
            if proved:
                break
        return plan, proved


def relaxed_bound(terms: Terms, errors: Sequence[np.ndarray], plan: Sequence[int], budget: float) -> float:
    """A lower bound on the error within a budget for a cost that cannot be eliminated; tight in cost at (u,) `plan`.

    Lagrangian, on terms that are nowhere above the true ones: coupled along a forest, or not at all where even that
    takes too long. The plan must be within the budget.
    """
    allowed, terms, errors = _allowed(terms, errors)
    reference = [int(np.searchsorted(options, option)) for options, option in zip(allowed, plan, strict=True)]
    tree, sums = (eliminate(relaxed(terms, reference, forest=f), errors, TRANSITIONS) for f in (True, False))
    elimination = tree or sums
    return -np.inf if elimination is None else lower_bound(elimination, budget).error


def _allowed(terms: Terms, errors: Sequence[np.ndarray]) -> tuple[tuple[np.ndarray, ...], Terms, list[np.ndarray]]:
    """The options with a finite error, (k,) indices for each unit, with terms and (k,) errors over these alone."""
    allowed = tuple(np.flatnonzero(np.isfinite(error)) for error in errors)
    finite = [np.asarray(error, float)[options] for error, options in zip(errors, allowed, strict=True)]
    return allowed, terms.restricted(allowed), finite


def _meets(plan: Plan, bound: float) -> bool:
    """Whether a plan is as good as a bound, up to the rounding of sums."""
    return plan.error <= bound + 4 * SLACK * abs(bound)
