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
FIRST_LIMIT, NEXT_LIMIT = 1 / 256, 4  # of the gap between a bound and a plan: see `_refined`
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
        return self._refined(budget, plan, bound)

    def _refined(self, budget: float, plan: Plan, bound: Bound) -> Solution:
        """The best plan within the budget, looked for below limits that rise from the bound to the error of `plan`.

        Below a low limit there are few partial plans; where there is no plan at all, the limit is a bound itself.
        """
        rounding = Rounding(REFINED_STEPS, self.rounding.width, sorted=REFINED_SORTED)
        least, step = bound.error, (plan.error - bound.error) * FIRST_LIMIT
        while least < plan.error:
            limit = min(least + step, plan.error)
            found, proved = improved(self.elimination, rounding, budget, limit, bound)
            better = None if found is None else self._priced(found, budget)
            if better is not None and proved:
                return Solution(better, better.error, exact=True)
            if found is not None or not proved:
                return Solution(better or plan, least, exact=False)
            least, step = limit, step * NEXT_LIMIT
        return Solution(plan, plan.error, exact=True)

    def _priced(self, plan: Plan, budget: float) -> Plan | None:
        """A plan by the options the caller knows; None if it is above the budget, by the rounding of a sum."""
        cost = float(self.terms.cost(np.array([plan.choice]))[0])
        choice = tuple(int(a[option]) for a, option in zip(self.allowed, plan.choice, strict=True))
        return Plan(choice, cost, plan.error) if cost <= budget else None


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
