"""Refines a plan: measures damages again around the best network so far, and plans with them again.

Damages of single units in the dense network stop adding up when much is removed. Around the best known network within
the budget every unit is changed once more on its own; the ratio of that damage to the table's says how far the unit's
whole row is off there. Plans from rows scaled by these ratios are measured, with moves halved until one is better, and
the next round starts from it. The shape of a row is that of the first probes, so a round needs one probe per unit.

It is a trust-region method (Conn, Gould and Toint, Trust-Region Methods, 2000, chapter 6) whose model is an exact
allocation. Tables of damages measured in a compressed network are known from iterative pruning, such as SPDY's search
over coefficients of its table (Frantar and Alistarh, ICML 2022, https://arxiv.org/abs/2201.13096, section 3.2), which
draws the factors at random and keeps the best; we measure them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.plan.allocation import plan
from autoprune.plan.damages import damages_by_levels
from autoprune.searchers.common.proposals import Proposals

SHRUNK = 0.75  # largest share of its current count that a probed unit keeps
LARGEST_FACTOR = 8.0  # largest factor of a row, or of its inverse


class Refinement:
    """Proposes networks around the best one it was told of, for one budget, in at most `rounds` rounds.

    A round is one probe per unit and a few plans; it ends early if no plan is better. `table` are (u, l) damages (see
    plan.damages), `cost` is the name of the cost that `budget` limits. Nothing is proposed before a network within the
    budget was told.
    """

    def __init__(self, problem: Problem, table: np.ndarray, cost: str, budget: float, *, rounds: int = 3) -> None:
        self._problem, self._table, self._cost, self._budget = problem, table, cost, budget
        self._proposals = Proposals(problem)
        self._damages: dict[Levels, float] = {}
        self._within: set[Levels] = set()  # the budget
        self._course = self._steps(at_least("rounds", rounds, 1))

    @property
    def best(self) -> Levels | None:
        """The told network of least damage within the budget."""
        return min(sorted(self._within), key=self._damages.__getitem__, default=None)

    @property
    def waiting(self) -> bool:
        """Whether answers are pending."""
        return self._proposals.waiting

    def ask(self, n: int) -> list[Candidate]:
        while n > 0 and not self._proposals.queued and not self._proposals.waiting:
            step = next(self._course, None)
            if step is None:
                break
            for levels in step:
                self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        usable = self._proposals.record(evaluations)
        if usable:
            costs = self._problem.cost_values(np.array([e.candidate.levels for e in usable]), (self._cost,))[self._cost]
            self._within |= {e.candidate.levels for e, cost in zip(usable, costs, strict=True) if cost <= self._budget}
            self._damages |= damages_by_levels(self._problem, usable)

    def _steps(self, rounds: int) -> Iterator[list[Levels]]:
        """The networks to measure, step by step; each step uses the answers to the previous one."""
        for _ in range(rounds):
            base = self.best
            if base is None:
                return
            probes = self._probes(base)
            yield list(probes.values())
            rows = self._table * self._factors(base, probes)[:, None]
            radius = self._table.shape[1]
            while radius and self.best == base:
                planned = self._planned(rows, base, radius)
                yield [planned]
                radius = max(abs(a - b) for a, b in zip(planned, base, strict=True)) // 2
            if self.best == base:
                return

    def _probes(self, base: Levels) -> dict[int, Levels]:
        """By unit, the base with that unit narrower, or wider if it is at its smallest."""
        found = {}
        for unit, level in enumerate(base):
            kept = np.array(self._problem.space.levels[unit])
            open_ = np.flatnonzero(np.isfinite(self._table[unit, : len(kept)]))
            narrower, wider = open_[open_ > level], open_[open_ < level]
            enough = narrower[kept[narrower] <= SHRUNK * kept[level]]
            choice = [*enough[:1], *narrower[::-1], *wider[::-1]]
            if choice:
                found[unit] = (*base[:unit], int(choice[0]), *base[unit + 1 :])
        inside = self._problem.feasible(np.array(list(found.values())).reshape(-1, len(base)))
        return {unit: probe for (unit, probe), fits in zip(found.items(), inside, strict=True) if fits}

    def _factors(self, base: Levels, probes: Mapping[int, Levels]) -> np.ndarray:
        """(u,) ratios of probed to tabulated damage; 1 if the table has none or the probe failed."""
        factors = np.ones(len(base))
        for unit, probe in probes.items():
            expected = self._table[unit, probe[unit]] - self._table[unit, base[unit]]
            if probe in self._damages and expected != 0:
                factors[unit] = (self._damages[probe] - self._damages[base]) / expected
        return np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR)

    def _planned(self, rows: np.ndarray, base: Levels, radius: int) -> Levels:
        """The plan within `radius` levels of the base; a unit whose level there is not in the table stays there."""
        own = np.arange(rows.shape[1]) == np.array(base)[:, None]
        near = np.abs(np.arange(rows.shape[1]) - np.array(base)[:, None]) <= radius
        unknown = np.isinf(rows[own])[:, None]
        nearby = np.where(near & ~unknown, rows, np.where(own & unknown, 0.0, np.inf))
        return plan(self._problem, nearby, self._cost, self._budget)
