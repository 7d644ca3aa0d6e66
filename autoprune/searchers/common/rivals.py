"""Compares plans with the uniform network of equal cost, which is measured too if it may be the better one.

Damages of single units do not simply add up: a plan may empty units that matter together, and then the uniform network
does better. It is a baseline that needs no search, so a search that plans measures it, reports where it wins, and keeps
it among its results.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.plan.damages import damage_name, damages_by_levels
from autoprune.plan.ladder import uniform_levels

SMALL = 1e-3  # smallest difference that counts as worse, as a share of the spread of damages

_log = logging.getLogger(__name__)


class UniformRivals:
    """Selects uniform networks to measure beside plans on one cost, and reports the plans that are worse.

    The rival of a plan is the uniform network within all bounds with the largest cost not above the plan's.

    >>> rivals.planned(levels)                # this network is a plan
    >>> list(rivals.tell([evaluation_of_it])) # its rival, unless a uniform network at no less cost is known to be worse
    """

    def __init__(self, problem: Problem, cost: str) -> None:
        self._problem, self._cost = problem, cost
        self._comparable = problem.distortion is not None or any(
            o.name not in problem.costs.names for o in problem.objectives
        )
        rows = uniform_levels(problem.space)
        rows = rows[problem.feasible(rows)]
        costs = problem.cost_values(rows, (cost,))[cost]
        order = np.argsort(costs, kind="stable")
        self._rows: list[Levels] = [tuple(row) for row in rows[order].tolist()]
        self._costs = costs[order]
        self._place = {levels: index for index, levels in enumerate(self._rows)}
        self._damages = np.full(len(self._rows), np.nan)  # damages of the uniform networks, NaN: not measured
        self._plans: dict[Levels, float] = {}  # damages of plans, NaN: not measured
        self._within: dict[Levels, int] = {}  # number of uniform networks that cost no more than the plan
        self._worse: dict[Levels, Levels] = {}  # plans that lost, with the uniform network that is better

    def planned(self, levels: Levels) -> None:
        """Registers a network as a plan; a uniform one has no rival."""
        if levels in self._place or levels in self._plans:
            return
        self._plans[levels] = math.nan
        cost = self._problem.cost_values(np.array([levels]), (self._cost,))[self._cost][0]
        self._within[levels] = int(np.searchsorted(self._costs, cost, side="right"))

    @property
    def remark(self) -> str:
        """The number of plans that lost against a uniform network; empty if none did."""
        if not self._worse:
            return ""
        return f"{len(self._worse)} of {len(self._plans)} plans are worse than the uniform network of equal cost"

    def tell(self, evaluations: Sequence[Evaluation]) -> Iterator[Levels]:
        """Takes in measurements and yields the rivals to measure."""
        for levels, damage in damages_by_levels(self._problem, evaluations if self._comparable else ()).items():
            if levels in self._place:
                self._damages[self._place[levels]] = damage
                self._judge(list(self._plans))
            elif levels in self._plans and math.isnan(self._plans[levels]):
                self._plans[levels] = damage
                self._judge([levels])
                if (rival := self._rival(levels)) is not None:
                    yield rival

    def _rival(self, levels: Levels) -> Levels | None:
        """The rival of a plan; None if it was measured, or the plan beats a measured one of at least its cost."""
        within = self._within[levels]
        dearer = self._damages[within:]
        known = dearer[~np.isnan(dearer)]
        if within == 0 or not math.isnan(self._damages[within - 1]):
            return None
        return None if len(known) and self._plans[levels] <= known[0] else self._rows[within - 1]

    def _judge(self, plans: Sequence[Levels]) -> None:
        """Reports, once each, which of these plans are worse than a measured uniform network that costs no more."""
        for levels in plans:
            rivals, damage = self._damages[: self._within[levels]], self._plans[levels]
            if levels in self._worse or math.isnan(damage) or np.isnan(rivals).all():
                continue
            best = int(np.nanargmin(rivals))
            if rivals[best] + SMALL * self._spread() < damage:
                self._worse[levels] = self._rows[best]
                self._say(levels, self._rows[best])

    def _spread(self) -> float:
        """The interquartile range of all measured damages; useless networks can have any damage."""
        known = np.array([*self._damages, *self._plans.values()])
        known = known[np.isfinite(known)]
        return float(np.subtract(*np.percentile(known, [75, 25]))) if len(known) else 0.0

    def _say(self, plan: Levels, uniform: Levels) -> None:
        costs = self._problem.cost_values(np.array([plan, uniform]), (self._cost,))[self._cost]
        _log.info(
            "the plan with %s = %g (%s) is worse than the uniform network with %s = %g (%s), which takes its place",
            self._cost,
            costs[0],
            self._shown(self._plans[plan]),
            self._cost,
            costs[1],
            self._shown(self._damages[self._place[uniform]]),
        )

    def _shown(self, damage: float) -> str:
        """A damage with its name; for an objective to maximise, its value with the sign flipped back."""
        return f"{damage_name(self._problem)} {abs(damage):.4g}" if math.isfinite(damage) else "which cannot be scored"
