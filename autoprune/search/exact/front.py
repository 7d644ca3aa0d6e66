"""All plans that no other one betters in cost or error, by elimination with one staircase for each open state.

The multiple-choice knapsack's merging of staircases (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11,
https://doi.org/10.1007/978-3-540-24777-7; Humble et al., Soft Masking for Cost-Constrained Channel Pruning, ECCV 2022,
https://arxiv.org/abs/2211.02206, for pruning), for costs that couple units as well. Exact for real costs as
long as the staircases stay short; a longer one keeps one plan in each bucket of costs, at its true cost, so that no
plan ever costs more than it says.

Memory: for each step of each staircase that is kept, its origin, in the smallest integers that hold it: 3 to 8 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoprune.errors import InfeasibleBudget
from autoprune.search.exact.elimination import Elimination, Step
from autoprune.search.exact.staircase import Origins, Staircase, Sum, bucketed, joined, thinned
from autoprune.search.exact.terms import Terms

EXACT_STATES = 32_768  # different costs, up to which costs with a common divisor are not rounded
BUCKETS = 10_000  # of the reach of costs, for longer staircases than this
STORED = 50_000_000  # steps of all staircases together
WORK = 300_000_000  # plans looked at: some ten seconds
LEAST_BUCKETS = 200  # whatever that takes

NONE = np.zeros(0, dtype=np.intp)
EMPTY = Staircase(np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Plan:
    """One option index per unit, its true cost and its error."""

    choice: tuple[int, ...]
    cost: float
    error: float


@dataclass(frozen=True, eq=False)
class Frontier(Sequence[Plan]):
    """Plans by rising cost and falling error: (n,) costs and errors, (n, u) options.

    `resolution` is 0 where no better plan exists at any budget. Else it is the width of the cost buckets, one plan
    each, and a plan cheaper by less than a bucket for each unit may have been missed.
    """

    costs: np.ndarray
    errors: np.ndarray
    choices: np.ndarray
    resolution: float = 0.0

    @property
    def exact(self) -> bool:
        return self.resolution == 0

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, index: int) -> Plan:  # type: ignore[override]  # a slice of plans has no use
        choice = tuple(self.choices[index].tolist())
        return Plan(choice, float(self.costs[index]), float(self.errors[index]))

    def within(self, budget: float) -> Plan:
        """The best plan for a budget; InfeasibleBudget, naming the least cost, when none is within it."""
        if not budget >= self.costs[0]:  # also for NaN
            raise unreachable(budget, float(self.costs[0]))
        return self[int(np.searchsorted(self.costs, budget, side="right")) - 1]


def unreachable(budget: float, least: float) -> InfeasibleBudget:
    """The error for a budget below the least cost of any plan."""
    return InfeasibleBudget(
        f"budget {budget:g} cannot be reached: the least reachable cost is {least:g}. Raise the budget or allow what "
        "costs less."
    )


@dataclass(frozen=True)
class Rounding:
    """When a staircase is thinned: never up to `steps` steps; a longer one keeps one step in each bucket of `width`.

    `lossless` says that costs are multiples of the width, so that nothing is lost. More than `sorted` plans are not
    sorted but put into buckets as they come.
    """

    steps: int
    width: float
    lossless: bool = False
    sorted: int = 50_000


class Pruning(Protocol):
    """What a sweep may leave out; steps are given by their number."""

    def used(self, number: int) -> Mapping[int, np.ndarray]:
        """The states after a step that can be of use, ascending, each with the columns of its pairs that can be."""
        ...

    def plans(self, number: int, state: int, plans: Staircase) -> np.ndarray:
        """(n,) whether each of the plans that are in a state after a step can be of use."""
        ...


def rounding_for(elimination: Elimination, terms: Terms, resolution: float | None) -> Rounding:
    """How finely the front of an elimination of these terms is made, within the limits of this module.

    A `resolution` is the wanted width of the buckets, whatever the limits.
    """
    reach, divisor = terms.reach, terms.divisor
    room = min(STORED / elimination.states, WORK / elimination.transitions)
    if reach == 0:
        return Rounding(EXACT_STATES, 1.0, lossless=True)
    if resolution is not None:
        return Rounding(0, resolution, lossless=bool(divisor) and divisor % resolution == 0)
    if divisor and reach / divisor <= min(EXACT_STATES, room):
        return Rounding(EXACT_STATES, float(divisor), lossless=True)
    buckets = int(np.clip(room, LEAST_BUCKETS, BUCKETS))
    return Rounding(buckets, reach / buckets)


def frontier_of(elimination: Elimination, rounding: Rounding) -> Frontier:
    """The front of all plans; thinned as the rounding says."""
    sweep = Sweep(elimination, rounding)
    stairs = sweep.run()
    choices = sweep.choices(np.arange(len(stairs)))
    width = rounding.width if sweep.rounded else 0.0
    return Frontier(stairs.costs + elimination.constant, stairs.errors, choices, width)


class Sweep:
    """One pass over the steps of an elimination, and the choices behind what it ends with.

    `rounded` says, after `run`, whether a staircase was thinned at a loss.
    """

    def __init__(self, elimination: Elimination, rounding: Rounding, pruning: Pruning | None = None) -> None:
        self._elimination, self._rounding, self._pruning = elimination, rounding, pruning
        self._layers: list[_Layer | _Forced] = []
        self.rounded = False

    def run(self) -> Staircase:
        """The staircase after the last step, without the constant; empty if the pruning left nothing."""
        stairs = {0: Staircase(np.zeros(1), np.zeros(1))}
        for number in range(len(self._elimination.steps)):
            stairs = self._after(number, stairs)
        return stairs.get(0, EMPTY)

    def choices(self, ends: np.ndarray) -> np.ndarray:
        """(n, u) options of (n,) steps of the last staircase."""
        options = np.empty((len(ends), len(self._layers)), dtype=np.int16)
        state = np.zeros(len(ends), dtype=np.intp)
        for layer in reversed(self._layers):
            state, option, ends = layer.back(state, ends)
            options[:, layer.step.unit] = option
        return options

    def _after(self, number: int, stairs: Mapping[int, Staircase]) -> dict[int, Staircase]:
        """The staircases after a step, by state, from those before it."""
        step = self._elimination.steps[number]
        used = _everything(step) if self._pruning is None else self._pruning.used(number)
        if sum(map(len, used.values())) == 1 and number + 1 < len(self._elimination.steps):  # most steps where little can be of use
            [(state, [pair])] = used.items()
            before, option = divmod(int(step.pairs[pair, state]), len(step.errors))
            self._layers.append(_Forced(step, before, option))
            return {state: stairs.get(before, EMPTY).plus(step.prices.item(before * len(step.errors) + option), step.errors.item(option))}
        sums = {state: self._sum(number, state, pairs, stairs) for state, pairs in used.items()}
        self._layers.append(_Layer.of(step, {state: origins for state, (_, origins) in sums.items()}))
        return {state: found for state, (found, _) in sums.items() if len(found)}

    def _sum(self, number: int, state: int, used: np.ndarray, stairs: Mapping[int, Staircase]) -> Sum:
        """The staircase of one state after one step, over the used ones of the pairs that lead there."""
        step = self._elimination.steps[number]
        before, options = step.before[used, state].tolist(), step.options[used, state]
        costs, errors = step.prices.ravel()[step.pairs[used, state]].tolist(), step.errors[options].tolist()
        parts = [(stairs.get(index, EMPTY), c, e) for index, c, e in zip(before, costs, errors, strict=True)]
        sources = [stair.plus(c, e) for stair, c, e in parts]
        if self._pruning is None:
            return self._rounded(sources)
        steps = [np.flatnonzero(self._pruning.plans(number, state, source)) for source in sources]
        found, origins = self._rounded([source[kept] for source, kept in zip(sources, steps, strict=True)])
        starts = np.cumsum([0, *map(len, steps)])[origins.source]
        return found, Origins(used[origins.source], np.concatenate([NONE, *steps])[starts + origins.step])

    def _rounded(self, sources: Sequence[Staircase]) -> Sum:
        limit = self._rounding
        if not sources:
            return EMPTY, Origins(NONE, NONE)
        if sum(map(len, sources)) > limit.sorted or limit.lossless:
            self.rounded |= not limit.lossless
            return bucketed(sources, limit.width)
        found = joined(sources)
        if len(found[0]) <= limit.steps:
            return found
        short = thinned(found, limit.width)
        self.rounded |= len(short[0]) < len(found[0])
        return short


def _everything(step: Step) -> dict[int, np.ndarray]:
    """All pairs of a step, by the state they lead to."""
    return dict.fromkeys(range(step.states), np.arange(len(step.pairs)))


@dataclass(frozen=True)
class _Forced:
    """A step of which one pair alone can be of use: staircases are what they were before."""

    step: Step
    before: int
    option: int

    def back(self, states: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
        """As that of a layer."""
        return np.full_like(states, self.before), self.option, ends


@dataclass(frozen=True)
class _Layer:
    """The origins of all staircases after one step, one after the other; those of a state begin at its offset."""

    step: Step
    offsets: np.ndarray  # (k,)
    origins: Origins

    @staticmethod
    def of(step: Step, origins: Mapping[int, Origins]) -> _Layer:
        """Of the states that were reached, in ascending order."""
        lengths = np.zeros(step.states, dtype=np.intp)
        for state, own in origins.items():
            lengths[state] = len(own.source)
        parts = origins.values()
        joint = Origins(_small([o.source for o in parts]), _small([o.step for o in parts]))
        return _Layer(step, np.cumsum(lengths) - lengths, joint)

    def back(self, states: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) states before, options taken and steps of the staircases before, of (n,) states and steps after."""
        origins = self.origins[self.offsets[states] + ends]
        before, options = np.divmod(self.step.pairs[origins.source, states], len(self.step.errors))
        return before, options, origins.step


def _small(parts: Sequence[np.ndarray]) -> np.ndarray:
    whole = np.concatenate([NONE, *parts])
    return whole.astype(np.min_scalar_type(int(whole.max(initial=0))))
