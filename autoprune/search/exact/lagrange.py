"""Lower bounds on the error within a budget, and the exact plan where the bound leaves few plans to look at.

For any multiplier m >= 0, min over plans of error + m * cost, less m * budget, is at most the least error within the
budget (Everett, Generalized Lagrange Multiplier Method, Operations Research 11, 1963,
https://doi.org/10.1287/opre.11.3.399); elimination finds that minimum exactly, whatever the cost couples. The best
multiplier is the slope of the front's convex hull at the budget. A partial plan whose own Lagrangian bound is not below
the error of a plan in hand cannot lead to a better one; with those left out, staircases stay short (the core of
Pisinger, A minimal algorithm for the multiple-choice knapsack problem, European Journal of Operational Research 83,
1995, https://doi.org/10.1016/0377-2217(95)00015-I; we bound every state of the elimination, not single options, and so
need no order of a core).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.search.exact.elimination import Elimination
from autoprune.search.exact.front import Plan, Rounding, Sweep
from autoprune.search.exact.staircase import Staircase

SLACK = 1e-12  # relative: what the rounding of sums may add to a bound


@dataclass(frozen=True)
class Hull:
    """The convex hull of all plans at a budget: no plan within it has an error below `bound`.

    `multiplier` is the slope that proves it, `plan` the plan within the budget at the end of the hull's line there.
    """

    bound: float
    multiplier: float
    plan: Plan


def lower_bound(elimination: Elimination, budget: float, known: list[Plan] | None = None) -> Hull:
    """The best Lagrangian bound for a budget that some plan is within.

    Two plans on the convex hull, one above and one within the budget, close in on it; the line through the last two is
    the hull at the budget. `known` are plans on the hull by falling cost, both ends among them or none at all: the
    search begins between two of these, and adds those it finds.
    """
    known = [] if known is None else known
    known += [] if known else [cheapest(elimination, 0.0), cheapest(elimination, math.inf)]
    if known[0].cost <= budget:
        return Hull(_safe(known[0].error), 0.0, known[0])
    place = next(index for index, plan in enumerate(known) if plan.cost <= budget or index == len(known) - 1)
    while True:
        above, within = known[place - 1], known[place]
        multiplier = (within.error - above.error) / (above.cost - within.cost)
        plan = cheapest(elimination, multiplier)
        value, line = (p.error + multiplier * (p.cost - budget) for p in (plan, within))
        if not value < line - SLACK * (abs(line) + multiplier * abs(budget)) or plan in (above, within):
            return Hull(_safe(min(value, line)), multiplier, within)
        known.insert(place, plan)
        place += plan.cost > budget


def _safe(bound: float) -> float:
    """A little less than a sum, by more than its rounding."""
    return bound - SLACK * abs(bound)


def cheapest(elimination: Elimination, multiplier: float) -> Plan:
    """The plan of least error + multiplier * cost.

    An infinite multiplier: of least cost, and of these the least error; 0: of least error, and of these the least cost.
    """
    cost, error, taken = np.zeros(1), np.zeros(1), list[np.ndarray]()
    for step in elimination.steps:
        costs = (cost[:, None] + step.prices.reshape(len(cost), -1)).ravel()[step.pairs]  # (k, c)
        errors = (error[:, None] + step.errors).ravel()[step.pairs]
        best = np.arange(len(costs)), _least(costs, errors, multiplier)
        cost, error = costs[best], errors[best]
        taken.append(step.pairs[best])
    return Plan(_choice(elimination, taken), float(cost[0] + elimination.constant), float(error[0]))


def _choice(elimination: Elimination, taken: Sequence[np.ndarray]) -> tuple[int, ...]:
    """The options behind the last state, from the (k,) pairs taken to each state after each step."""
    options, state = [0] * len(taken), 0
    for step, pairs in zip(reversed(elimination.steps), reversed(taken), strict=True):
        state, options[step.unit] = divmod(int(pairs[state]), len(step.errors))
    return tuple(options)


def _least(costs: np.ndarray, errors: np.ndarray, multiplier: float) -> np.ndarray:
    """(k,) the column of each row of (k, c) that is least."""
    if 0 < multiplier < math.inf:
        return np.asarray((errors + multiplier * costs).argmin(axis=1))
    first, second = (costs, errors) if multiplier else (errors, costs)
    return np.asarray(np.where(first == first.min(axis=1, keepdims=True), second, np.inf).argmin(axis=1))


def improved(
    elimination: Elimination, rounding: Rounding, budget: float, error: float, multiplier: float
) -> tuple[Plan | None, bool]:
    """The best plan within the budget with an error below a given one, and whether it is proved that none is better.

    None if there is no such plan. Proved, unless staircases had to be thinned as the rounding says, in spite of what
    the bound left out. Any `multiplier` of 0 or more is valid; that of `lower_bound` leaves out most.
    """
    pruning = _Pruning.of(elimination, budget - elimination.constant, error, multiplier)
    sweep = Sweep(elimination, rounding, pruning)
    stairs = sweep.run()
    if not len(stairs):
        return None, not sweep.rounded
    choice = sweep.choices(np.array([len(stairs) - 1]))[0]
    found = Plan(tuple(choice.tolist()), float(stairs.costs[-1] + elimination.constant), float(stairs.errors[-1]))
    return found, not sweep.rounded


@dataclass(frozen=True)
class _Pruning:
    """Which partial plans can still become one within the budget and with an error below a given one.

    For each step, (k,) the least that the steps after it add to a state: error + multiplier * cost, the error alone,
    and the cost alone.
    """

    elimination: Elimination
    budget: float
    error: float
    multiplier: float
    bounds: list[np.ndarray]
    errors: list[np.ndarray]
    costs: list[np.ndarray]

    @staticmethod
    def of(elimination: Elimination, budget: float, error: float, multiplier: float) -> _Pruning:
        bounds, errors = elimination.completions(multiplier), elimination.completions(0.0)
        costs = elimination.completions(1.0, errors=False)
        return _Pruning(elimination, budget, _safe(error), multiplier, bounds, errors, costs)

    def pairs(self, number: int, stairs: Sequence[Staircase]) -> np.ndarray:
        """(k, c) whether the best plan of a state before, by its bound, can."""
        step = self.elimination.steps[number]
        least = np.array([np.min(s.errors + self.multiplier * s.costs, initial=np.inf) for s in stairs])
        prices = step.errors + self.multiplier * step.prices.reshape(len(stairs), -1)
        bound = (least[:, None] + prices).ravel()[step.pairs] + self.bounds[number][:, None]
        return np.asarray(bound - self.multiplier * self.budget < self.error)

    def plans(self, number: int, state: int, plans: Staircase) -> np.ndarray:
        """(n,) whether each of the plans that are in a state after a step can."""
        bound = plans.errors + self.multiplier * (plans.costs - self.budget) + self.bounds[number][state]
        error = plans.errors + self.errors[number][state]
        cost = plans.costs + self.costs[number][state]
        within = cost <= self.budget + SLACK * abs(self.budget)
        return np.asarray(within & (np.maximum(bound, error) < self.error))
