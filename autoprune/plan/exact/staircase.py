"""Pareto staircases: the costs and damages of non-dominated partial plans, and sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Staircase:
    """(n,) strictly rising costs and (n,) strictly falling damages."""

    costs: np.ndarray
    damages: np.ndarray

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, index: np.ndarray) -> Staircase:
        return Staircase(self.costs[index], self.damages[index])

    def plus(self, cost: float, damage: float) -> Staircase:
        return Staircase(self.costs + cost, self.damages + damage)


@dataclass(frozen=True)
class Origins:
    """The origin of each of (n,) steps of a staircase: the number of its source, and the step in that source."""

    source: np.ndarray
    step: np.ndarray

    def __getitem__(self, index: np.ndarray) -> Origins:
        return Origins(self.source[index], self.step[index])


TracedStaircase = tuple[Staircase, Origins]


def merge_staircases(sources: Sequence[TracedStaircase]) -> TracedStaircase:
    """The staircase of the plans of all sources (at least one); of equal plans the first."""
    if len(sources) == 1:
        return sources[0]
    costs = np.concatenate([stairs.costs for stairs, _ in sources])
    damages = np.concatenate([stairs.damages for stairs, _ in sources])
    steps = np.concatenate([origins.step for _, origins in sources])
    return staircase_of(costs, damages, Origins(np.concatenate([o.source for _, o in sources]), steps))


def staircase_of(costs: np.ndarray, damages: np.ndarray, origins: Origins) -> TracedStaircase:
    """The staircase of (n,) plans in any order; of equal plans the first."""
    order = np.argsort(costs, kind="stable")  # a stable sort is fast on runs that are sorted
    costs, damages = costs[order], damages[order]
    steps = _falling(damages)
    rising = np.ones(len(steps), dtype=bool)
    rising[:-1] = costs[steps[1:]] > costs[steps[:-1]]  # of plans of one cost the last has the least damage
    steps = steps[rising]
    return Staircase(costs[steps], damages[steps]), origins[order[steps]]


def thinned(found: TracedStaircase, width: float) -> TracedStaircase:
    """At most one step in each bucket of costs, the one with the least damage; the cheapest step stays."""
    stairs, origins = found
    buckets = np.ceil((stairs.costs - stairs.costs[0]) / width)
    steps = np.flatnonzero(np.diff(buckets, append=np.inf))
    return stairs[steps], origins[steps]


def bucketed(sources: Sequence[TracedStaircase], width: float) -> TracedStaircase:
    """Like `merge_staircases`, with one plan of least damage per cost bucket, in memory of the buckets alone.

    Buckets count from the cheapest plan, which has a bucket of its own and so is never lost; a plan keeps its true
    cost, so that rounding does not accumulate. Nothing is lost if costs are multiples of the width.
    """
    least = min((source.costs[0] for source, _ in sources if len(source)), default=0.0)
    most = max((source.costs[-1] for source, _ in sources if len(source)), default=0.0)
    count = int(np.ceil((most - least) / width)) + 1
    costs, damages = np.zeros(count), np.full(count, np.inf)
    origins = Origins(np.zeros(count, np.intp), np.zeros(count, np.intp))
    for source, own in sources:
        buckets = np.ceil((source.costs - least) / width).astype(np.intp)
        better = np.flatnonzero(source.damages < damages[buckets])
        buckets = buckets[better]  # of several steps in one bucket the last assigned stays, which has the least damage
        costs[buckets], damages[buckets] = source.costs[better], source.damages[better]
        origins.source[buckets], origins.step[buckets] = own.source[better], own.step[better]
    steps = _falling(damages)
    return Staircase(costs[steps], damages[steps]), origins[steps]


def _falling(damages: np.ndarray) -> np.ndarray:
    """The indices of (n,) damages that are below all before them, and below infinity."""
    before = np.full(len(damages), np.inf)
    np.minimum.accumulate(damages[:-1], out=before[1:])
    return np.asarray((damages < before).nonzero()[0])
