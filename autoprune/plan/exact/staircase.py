"""Pareto staircases: the costs and errors of partial plans that no other one betters, and sums of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Staircase:
    """(n,) costs that rise and (n,) errors that fall, strictly."""

    costs: np.ndarray
    errors: np.ndarray

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, index: np.ndarray) -> Staircase:
        return Staircase(self.costs[index], self.errors[index])

    def plus(self, cost: float, error: float) -> Staircase:
        return Staircase(self.costs + cost, self.errors + error)


@dataclass(frozen=True)
class Origins:
    """Where each of (n,) steps of a staircase comes from: its source by a number, and the step of that."""

    source: np.ndarray
    step: np.ndarray

    def __getitem__(self, index: np.ndarray) -> Origins:
        return Origins(self.source[index], self.step[index])


Sum = tuple[Staircase, Origins]


def joined(sources: Sequence[Sum]) -> Sum:
    """The staircase of the plans of all sources, one at least; of equal plans the first."""
    if len(sources) == 1:
        return sources[0]
    costs = np.concatenate([stairs.costs for stairs, _ in sources])
    errors = np.concatenate([stairs.errors for stairs, _ in sources])
    steps = np.concatenate([origins.step for _, origins in sources])
    return nondominated(costs, errors, Origins(np.concatenate([o.source for _, o in sources]), steps))


def nondominated(costs: np.ndarray, errors: np.ndarray, origins: Origins) -> Sum:
    """The staircase of (n,) plans in any order; of equal plans the first."""
    order = np.argsort(costs, kind="stable")  # runs are sorted already, which a stable sort makes use of
    costs, errors = costs[order], errors[order]
    steps = _falling(errors)
    rising = np.ones(len(steps), dtype=bool)
    rising[:-1] = costs[steps[1:]] > costs[steps[:-1]]  # of plans of one cost the last has the least error
    steps = steps[rising]
    return Staircase(costs[steps], errors[steps]), origins[order[steps]]


def thinned(found: Sum, width: float) -> Sum:
    """At most one step in each bucket of costs, the one with the least error; the cheapest step stays."""
    stairs, origins = found
    buckets = np.ceil((stairs.costs - stairs.costs[0]) / width)
    steps = np.flatnonzero(np.diff(buckets, append=np.inf))
    return stairs[steps], origins[steps]


def bucketed(sources: Sequence[Sum], width: float) -> Sum:
    """As `joined`, of all plans in a bucket of costs the one with the least error, in memory of the buckets alone.

    Buckets count from the cheapest plan, which has one to itself and so is never lost; a plan keeps its true cost, so
    that rounding does not add up. Nothing is lost where costs are multiples of the width.
    """
    least = min((source.costs[0] for source, _ in sources if len(source)), default=0.0)
    most = max((source.costs[-1] for source, _ in sources if len(source)), default=0.0)
    count = int(np.ceil((most - least) / width)) + 1
    costs, errors = np.zeros(count), np.full(count, np.inf)
    origins = Origins(np.zeros(count, np.intp), np.zeros(count, np.intp))
    for source, own in sources:
        buckets = np.ceil((source.costs - least) / width).astype(np.intp)
        better = np.flatnonzero(source.errors < errors[buckets])
        buckets = buckets[better]  # of several steps in one bucket the last assigned stays, which has the least error
        costs[buckets], errors[buckets] = source.costs[better], source.errors[better]
        origins.source[buckets], origins.step[buckets] = own.source[better], own.step[better]
    steps = _falling(errors)
    return Staircase(costs[steps], errors[steps]), origins[steps]


def _falling(errors: np.ndarray) -> np.ndarray:
    """Indices of (n,) errors that are below all before them, and below infinity."""
    before = np.full(len(errors), np.inf)
    np.minimum.accumulate(errors[:-1], out=before[1:])
    return np.asarray((errors < before).nonzero()[0])
