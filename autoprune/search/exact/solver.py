"""The best options within any budget, with what is proved about them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoprune.search.exact.elimination import Elimination, eliminate
from autoprune.search.exact.front import Frontier, Plan, Rounding, frontier_of, rounding_for
from autoprune.search.exact.lagrange import SLACK, improved, lower_bound
from autoprune.search.exact.terms import Terms

TRANSITIONS = 500_000  # prices looked at in one pass: what takes more is not eliminated
REFINED = 20_000  # transitions up to which single budgets are refined, in seconds at worst


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
    elimination: Elimination
    rounding: Rounding

    @staticmethod
    def of(terms: Terms, errors: Sequence[np.ndarray], resolution: float | None = None) -> Solver | None:
        """For a cost and (l,) errors of each unit; an option whose error is not finite is not allowed.

        None where the cost couples too many units for elimination. `resolution` is the width of the buckets of cost;
        None: no rounding where staircases stay short, else a ten-thousandth of the reach of costs, or wider where
        memory or time would not do.
        """
        allowed = tuple(np.flatnonzero(np.isfinite(error)) for error in errors)
        terms = terms.restricted(allowed)
        finite = [np.asarray(error, float)[options] for error, options in zip(errors, allowed, strict=True)]
        elimination = eliminate(terms, finite, TRANSITIONS)
        if elimination is None:
            return None
        rounding = rounding_for(elimination, terms.reach, terms.divisor, resolution)
        return None if rounding is None else Solver(allowed, elimination, rounding)

    @functools.cached_property
    def frontier(self) -> Frontier:
        """All plans that no other one betters, as far as they are told apart."""
        found = frontier_of(self.elimination, self.rounding)
        choices = np.stack([a[found.choices[:, unit]] for unit, a in enumerate(self.allowed)], axis=1)
        return replace(found, choices=choices.astype(np.int16))

    def solve(self, budget: float) -> Solution:
        """The best plan within a budget; InfeasibleBudget, naming the least cost, when there is none."""
        plan = self.frontier.within(budget)
        if self.frontier.exact:
            return Solution(plan, plan.error, exact=True)
        bound = lower_bound(self.elimination, budget)
        if self.elimination.transitions > REFINED or _meets(plan, bound.error):
            return Solution(plan, min(bound.error, plan.error), exact=_meets(plan, bound.error))
        found, proved = improved(self.elimination, self.rounding, budget, plan, bound)
        if found is not plan:
            choice = tuple(int(a[option]) for a, option in zip(self.allowed, found.choice, strict=True))
            plan = replace(found, choice=choice)
        return Solution(plan, plan.error if proved else min(bound.error, plan.error), proved)


def _meets(plan: Plan, bound: float) -> bool:
    """Whether a plan is as good as a bound, up to the rounding of sums."""
    return plan.error <= bound + 4 * SLACK * abs(bound)
