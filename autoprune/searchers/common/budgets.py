"""Budgets to plan for, spread over the range of each cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Levels
from autoprune.plan.damages import damages_by_levels
from autoprune.plan.ladder import ROUND_SHARES

CHEAP = 0.1  # share of the range of a cost, up to which networks count as the worst ones
WORST = 0.9  # share of their least damage from which on other networks count as no better

Budgets = tuple[str, list[float]]  # name of the cost, and limits


class SpreadBudgets:
    """Budgets over the reachable range of each cost that is an objective, one cost after the other.

    If no objective is a cost, the only budget is the largest.

    Args:
        problem: the problem to search.
        above_worst: whether to leave out the lower end of the range, up to the largest budget drawn before within which
            no known network is much better than the cheapest ones. Differences between networks there are of no use.

    >>> budgets.tell(evaluations)
    >>> budgets.next(3)      # ("macs", [500.0, 250.0, 750.0]), where the range is 0 to 1000
    """

    def __init__(self, problem: Problem, *, above_worst: bool = False) -> None:
        self._problem = problem
        names = [o.name for o in problem.objectives if o.name in problem.costs.names]
        self._ranges = [(name, *cost_range(problem, name)) for name in names or [primary_cost(problem)]]
        self._single = not names
        self._turn = 0
        self._spread = [0] * len(self._ranges)
        self._above_worst = above_worst
        self._drawn: dict[str, list[float]] = {name: [] for name, _, _ in self._ranges}
        self._damages: dict[Levels, float] = {}

    @property
    def costs(self) -> list[str]:
        """The names of the costs."""
        return [name for name, _, _ in self._ranges]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        if self._above_worst:
            self._damages.update(damages_by_levels(self._problem, evaluations))

    def next(self, n: int) -> Budgets:
        """The next n budgets on the next cost, so that all budgets drawn so far are spread evenly."""
        place = self._turn % len(self._ranges)
        name, least, most = self._ranges[place]
        self._turn += 1
        if self._single:
            return name, [most]
        first = self._spread[place] + 1
        self._spread[place] += n
        least = max([least, *self._bad(name, self._drawn[name])])
        values = [least + (most - least) * _corput(index) for index in range(first, first + n)]
        self._drawn[name] += values
        return name, values

    def round_shares(self, n: int) -> Iterator[Budgets]:
        """Groups of up to n round shares of each cost of the dense network, descending.

        A cost's groups end with the first one in which no known network is much better than the cheapest ones.
        """
        for name, least, most in self._ranges:
            dense = self._problem.costs.dense()[name]
            shares = dense * np.arange(ROUND_SHARES - 1, 0, -1) / ROUND_SHARES
            inside = [most] if self._single else [float(share) for share in shares if least <= share <= most]
            for start in range(0, len(inside), n):
                yield name, inside[start : start + n]
                self._drawn[name] += inside[start : start + n]
                if self._bad(name, inside[start : start + n]):
                    break

    def _bad(self, name: str, budgets: Sequence[float]) -> list[float]:
        """The budgets within which the best known network is about as bad as the best of the cheapest ones."""
        known = {levels: damage for levels, damage in self._damages.items() if np.isfinite(damage)}
        if not known:
            return []
        least, most = next(ends for cost, *ends in self._ranges if cost == name)
        costs = self._problem.cost_values(np.array(list(known)), (name,))[name]
        order = np.argsort(costs, kind="stable")
        best = np.minimum.accumulate(np.array(list(known.values()))[order])  # the least damage within each cost
        asked = [least + CHEAP * (most - least), *budgets]
        worst, *within = best[np.maximum(np.searchsorted(costs[order], asked, side="right") - 1, 0)]
        limit = best[-1] + WORST * (worst - best[-1])
        return [budget for budget, damage in zip(budgets, within, strict=True) if damage > limit]


def _corput(index: int) -> float:
    """The van der Corput sequence from index 1: 1/2, 1/4, 3/4, 1/8, ... (the binary digits mirrored)."""
    digits = f"{index:b}"
    return float(int(digits[::-1], 2) / 2 ** len(digits))
