"""Lower bounds on the damage within a budget, and exact plans where the bound leaves few candidates.

For any multiplier m >= 0, min over plans of damage + m * cost, less m * budget, is at most the least damage within the
budget (Everett, Generalized Lagrange Multiplier Method, Operations Research 11, 1963,
https://doi.org/10.1287/opre.11.3.399); elimination finds that minimum exactly, whatever the cost couples. The best
multiplier is the slope of the front's convex hull at the budget. A partial plan whose own Lagrangian bound is not below
the damage of a known plan cannot lead to a better one; with those left out, staircases stay short (the core of
Pisinger, A minimal algorithm for the multiple-choice knapsack problem, European Journal of Operational Research 83,
1995, https://doi.org/10.1016/0377-2217(95)00015-I; we bound every state of the elimination instead of single options,
and so need no order of a core).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.plan.exact.elimination import Elimination
from autoprune.plan.exact.front import Plan, Rounding, Sweep
from autoprune.plan.exact.staircase import Staircase

SLOPES = 2.0 ** np.arange(-7, 8)  # first slopes of a hull, relative to the line between its ends
TOGETHER = 1 << 17  # sums per pass over several multipliers, so that they fit into the cache
SLACK = 1e-12  # relative rounding error of a sum in a bound


@dataclass(frozen=True)
class HullBound:
    """A lower bound from the convex hull of all plans: none within the budget has a damage below `least`.

    `multiplier` is the slope that proves it; `plan` is the plan within the budget at the end of that edge of the hull.
    """

    least: float
    multiplier: float
    plan: Plan


class Hull:
    """The convex hull of all plans by cost and damage, computed as far as budgets need it.

    Two plans on the hull, one above a budget and one within it, close in on the budget; if no plan lies below the line
    through them, that line is an edge of the hull. Gaps around different budgets are narrowed together.
    """

    def __init__(self, elimination: Elimination) -> None:
        self._elimination = elimination
        self._plans: list[Plan] = []  # plans on the hull by falling cost, including both ends
        self._proofs: dict[float, Plan] = {}  # plans that prove an edge of the hull, by the cost at its upper end

    def at(self, budget: float) -> HullBound:
        """The best Lagrangian bound for a budget that at least one plan meets."""
        self.narrow([budget])
        gap = self._gap(budget)
        if gap is None:
            return HullBound(_safe(self._plans[0].damage), 0.0, self._plans[0])
        above, within = gap
        multiplier = _slope(above, within)
        values = [p.damage + multiplier * (p.cost - budget) for p in (self._proofs[above.cost], within)]
        return HullBound(_safe(min(values)), multiplier, within)

    @property
    def narrowest(self) -> Plan:
        """The plan of least cost."""
        self.narrow([])
        return self._plans[-1]

    def narrow(self, budgets: Sequence[float]) -> None:
        """Finds the hull at all of the budgets, in fewer passes than one by one."""
        if not self._plans:
            self._plans = self._first()
        while gaps := self._open(budgets):
            found = cheapest(self._elimination, [_slope(*gap) for gap in gaps])
            for (above, within), plan in zip(gaps, found, strict=True):
                if _below(plan, above, within):
                    bisect.insort(self._plans, plan, key=lambda p: -p.cost)
                else:
                    self._proofs[above.cost] = plan

    def _first(self) -> list[Plan]:
        """Both ends of the hull, and some plans between them."""
        widest, narrowest = cheapest(self._elimination, [0.0, math.inf])
        if narrowest.cost >= widest.cost:
            return [widest]
        few = len(self._elimination.added) * len(SLOPES) <= TOGETHER  # then many take hardly longer than one
        between = cheapest(self._elimination, _slope(widest, narrowest) * SLOPES) if few else []
        costs = {plan.cost: plan for plan in (*between, widest, narrowest)}
        return sorted(costs.values(), key=lambda plan: -plan.cost)

    def _gap(self, budget: float) -> tuple[Plan, Plan] | None:
        """The neighbouring plans above a budget and within it; None if the first plan is within it."""
        place = bisect.bisect_left(self._plans, -budget, key=lambda p: -p.cost)
        place = min(place, len(self._plans) - 1)  # the last plan is within the budget up to rounding
        return (self._plans[place - 1], self._plans[place]) if place else None

    def _open(self, budgets: Sequence[float]) -> list[tuple[Plan, Plan]]:
        """The gaps around budgets that are not proved to be edges of the hull, without repetition."""
        gaps = {gap[0].cost: gap for gap in map(self._gap, budgets) if gap is not None}
        return [gap for cost, gap in gaps.items() if cost not in self._proofs]


def _slope(above: Plan, within: Plan) -> float:
    return (within.damage - above.damage) / (above.cost - within.cost)


def _below(plan: Plan, above: Plan, within: Plan) -> bool:
    """Whether a plan lies between two others and below the line through them, by more than rounding."""
    multiplier = _slope(above, within)
    value = plan.damage + multiplier * (plan.cost - within.cost)
    slack = SLACK * (abs(within.damage) + multiplier * abs(within.cost))
    return within.cost < plan.cost < above.cost and value < within.damage - slack


def _safe(bound: float) -> float:
    """A sum lowered by more than its rounding error."""
    return bound - SLACK * abs(bound)


def cheapest(elimination: Elimination, multipliers: Sequence[float] | np.ndarray) -> list[Plan]:
    """For each of (b,) multipliers the plan of least damage + multiplier * cost.

    An infinite multiplier: least cost, then least damage; 0: least damage, then least cost.
    """
    weights = _weights(np.array(multipliers))
    width = max(1, TOGETHER // len(elimination.added))
    starts = range(0, len(multipliers), width)
    return [plan for start in starts for plan in _plans(elimination, weights[:, start : start + width])]


def _weights(multipliers: np.ndarray) -> np.ndarray:
    """(2, b) weights of damages and costs; complex at both ends, since numpy compares real parts first."""
    narrowest, widest = np.isinf(multipliers), multipliers == 0
    first, second = np.stack([~narrowest, np.where(narrowest, 1.0, multipliers)]), np.stack([narrowest, widest])
    return first + 1j * second if second.any() else first


def _plans(elimination: Elimination, weights: np.ndarray) -> list[Plan]:
    """The b plans of the least weighted sum of damage and cost, for (2, b) weights."""
    rows = np.arange(weights.shape[1])
    value, sums = np.zeros((1, len(rows))), list[np.ndarray]()
    for step, own in zip(elimination.steps, elimination.parts(elimination.added @ weights), strict=True):
        sums.append(value.take(step.before, axis=0) + own)  # (c, k, b)
        value = np.minimum.reduce(sums[-1], axis=0)
    state, (entries, choices) = np.zeros_like(rows), np.empty((2, len(sums), len(rows)), dtype=np.intp)
    for number in range(len(sums) - 1, -1, -1):
        step = elimination.steps[number]
        pair = sums[number][:, state, rows].argmin(axis=0) * step.states + state
        entries[number] = elimination.starts[number] + pair
        choices[step.unit] = step.pairs.take(pair) % len(step.damages)
        state = step.before.take(pair)
    damages, costs = elimination.added[entries].cumsum(axis=0)[-1].T  # one by one, as staircases add them up
    found = zip(choices.T.tolist(), (costs + elimination.constant).tolist(), damages.tolist(), strict=True)
    return [Plan(tuple(choice), cost, damage) for choice, cost, damage in found]


def improved(elimination: Elimination, rounding: Rounding, core: Core, damage: float) -> tuple[Plan | None, bool]:
    """The best plan within the core's budget with less than the given damage (None if there is none), and a proof flag.

    The flag is True if no better plan exists; False if staircases had to be thinned as the rounding says, in spite of
    the partial plans that the bound left out.
    """
    sweep = Sweep(elimination, rounding, _Pruning(core, _safe(damage)))
    stairs = sweep.run()
    if not len(stairs):
        return None, not sweep.rounded
    choice = sweep.choices(np.array([len(stairs) - 1]))[0]
    found = Plan(tuple(choice.tolist()), float(stairs.costs[-1] + elimination.constant), float(stairs.damages[-1]))
    return found, not sweep.rounded


@dataclass(frozen=True)
class Core:
    """Lower bounds on the completions of partial plans that are to stay within a budget.

    Any multiplier of 0 or more is valid; that of `Hull` leaves out most. The budget excludes the constant.

    Attributes:
        pairs: for each of the elimination's t pairs, the least damage + multiplier * (cost - budget) of plans through
            it.
        completions: for each step, the (k, 3) least sums that later steps add to a state: damage + multiplier * cost,
            the damage alone, and the cost alone.
    """

    elimination: Elimination
    budget: float
    multiplier: float
    pairs: np.ndarray
    completions: list[np.ndarray]

    @staticmethod
    def of(elimination: Elimination, budget: float, multiplier: float) -> Core:
        budget = budget - elimination.constant
        values = elimination.added @ np.array([[1.0, 1.0, 0.0], [multiplier, 0.0, 1.0]])
        completions = elimination.completions(values)
        pairs, least = list[np.ndarray](), np.zeros(1)
        for step, own, after in zip(elimination.steps, elimination.parts(values), completions, strict=True):
            reached = least[step.before] + own[:, :, 0]
            pairs.append((reached + after[:, 0]).ravel())
            least = reached.min(axis=0)
        return Core(elimination, budget, multiplier, np.concatenate(pairs) - multiplier * budget, completions)


class _Pruning:
    """Tells which partial plans can still become one within the core's budget and below a given damage."""

    def __init__(self, core: Core, damage: float) -> None:
        self._core, self._damage = core, damage
        self._used = np.flatnonzero(core.pairs < damage)
        self._starts = self._used.searchsorted(core.elimination.starts).tolist()

    def used(self, number: int) -> dict[int, list[int]]:
        """The pairs of a step that such a plan can go through, by the state they lead to."""
        start, states = int(self._core.elimination.starts[number]), self._core.elimination.steps[number].states
        found: dict[int, list[int]] = {}
        for place in self._used[self._starts[number] : self._starts[number + 1]].tolist():
            pair, state = divmod(place - start, states)
            found.setdefault(state, []).append(pair)
        return dict(sorted(found.items()))

    def plans(self, number: int, state: int, plans: Staircase) -> np.ndarray:
        """(n,) whether each of the partial plans in a state after a step can."""
        core = self._core
        bound, damage, cost = core.completions[number][state].tolist()
        within = plans.costs + cost <= core.budget + SLACK * abs(core.budget)
        better = plans.damages + core.multiplier * (plans.costs - core.budget) + bound < self._damage
        return np.asarray(within & better & (plans.damages + damage < self._damage))
