"""All plans that are not dominated in cost and damage, by elimination with one staircase for each open state.

The multiple-choice knapsack's merging of staircases (Kellerer, Pferschy, Pisinger, Knapsack Problems, 2004, chapter 11,
https://doi.org/10.1007/978-3-540-24777-7; Humble et al., Soft Masking for Cost-Constrained Channel Pruning, ECCV 2022,
https://arxiv.org/abs/2211.02206, for pruning), for costs that couple units as well. Exact for real costs as long as the
staircases stay short; a longer one keeps one plan in each bucket of costs, at its true cost, so that no plan ever costs
more than it says.

Memory: for each step of each stored staircase, its origin, in the smallest integers that hold it: 3 to 8 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoprune.errors import InfeasibleBudget
from autoprune.plan.exact.elimination import Elimination, EliminationStep
from autoprune.plan.exact.staircase import Origins, Staircase, TracedStaircase, bucketed, merge_staircases, thinned
from autoprune.plan.exact.terms import Terms

EXACT_STATES = 32_768  # up to this number of different costs, costs with a common divisor are not rounded
FRONT_BUCKETS = 10_000  # buckets over the range of costs, for staircases longer than this
STORED = 50_000_000  # limit on the steps of all staircases together
WORK = 300_000_000  # limit on the plans looked at: some ten seconds
LEAST_BUCKETS = 200  # lower limit, whatever it takes

NONE = np.zeros(0, dtype=np.intp)
EMPTY_STAIRCASE = Staircase(np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Plan:
    """One option index per unit, with the plan's true cost and its damage."""

    choice: tuple[int, ...]
    cost: float
    damage: float


@dataclass(frozen=True, eq=False)
class Frontier(Sequence[Plan]):
    """Plans by rising cost and falling damage: (n,) costs and damages, (n, u) options.

    `resolution` is 0 if the front is exact. Otherwise it is the width of the cost buckets, one plan each, and a plan
    cheaper by less than a bucket for each unit may have been missed.
    """

    costs: np.ndarray
    damages: np.ndarray
    choices: np.ndarray
    resolution: float = 0.0

    @property
    def exact(self) -> bool:
        return self.resolution == 0

    def __len__(self) -> int:
        return len(self.costs)

    def __getitem__(self, index: int) -> Plan:  # type: ignore[override]  # a slice of plans has no use
        choice = tuple(self.choices[index].tolist())
        return Plan(choice, float(self.costs[index]), float(self.damages[index]))

    def within(self, budget: float) -> Plan:
        """The best plan for a budget; InfeasibleBudget, naming the least cost, if none is within it."""
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

    `lossless` means that costs are multiples of the width, so that nothing is lost. More than `sorted` plans are not
    sorted but put into buckets one by one.
    """

    steps: int
    width: float
    lossless: bool = False
    sorted: int = 50_000


class SweepFilter(Protocol):
    """Tells a sweep what it may leave out; steps are given by their number."""

    def used(self, number: int) -> Mapping[int, Sequence[int]]:
        """The useful states after a step, ascending, each with the rows of its useful pairs."""
        ...

    def plans(self, number: int, state: int, plans: Staircase) -> np.ndarray:
        """(n,) whether each of the partial plans in a state after a step is useful."""
        ...


def rounding_for(elimination: Elimination, terms: Terms, resolution: float | None) -> Rounding:
    """The rounding of an elimination's front, within the limits of this module.

    A `resolution` sets the width of the buckets, whatever the limits.
    """
    reach, divisor = terms.reach, terms.divisor
    room = min(STORED / elimination.states, WORK / elimination.transitions)
    if reach == 0:
        return Rounding(EXACT_STATES, 1.0, lossless=True)
    if resolution is not None:
        return Rounding(0, resolution, lossless=bool(divisor) and divisor % resolution == 0)
    if divisor and reach / divisor <= min(EXACT_STATES, room):
        return Rounding(EXACT_STATES, float(divisor), lossless=True)
    buckets = int(np.clip(room, LEAST_BUCKETS, FRONT_BUCKETS))
    return Rounding(buckets, reach / buckets)


def frontier_of(elimination: Elimination, rounding: Rounding) -> Frontier:
    """The front of all plans, thinned as the rounding says."""
    sweep = Sweep(elimination, rounding)
    stairs = sweep.run()
    choices = sweep.choices(np.arange(len(stairs)))
    width = rounding.width if sweep.rounded else 0.0
    return Frontier(stairs.costs + elimination.constant, stairs.damages, choices, width)


class Sweep:
    """One pass over the steps of an elimination, and the choices behind the final staircase.

    After `run`, `rounded` tells whether a staircase was thinned with a loss.
    """

    def __init__(self, elimination: Elimination, rounding: Rounding, pruning: SweepFilter | None = None) -> None:
        self._elimination, self._rounding, self._pruning = elimination, rounding, pruning
        self._layers: list[_Layer | _Forced] = []
        self.rounded = False

    def run(self) -> Staircase:
        """The staircase after the last step, without the constant; empty if the filter left nothing."""
        stairs = {0: Staircase(np.zeros(1), np.zeros(1))}
        for number in range(len(self._elimination.steps)):
            stairs = self._after(number, stairs)
        return stairs.get(0, EMPTY_STAIRCASE)

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
        step, last = self._elimination.steps[number], len(self._elimination.steps) - 1
        used = _everything(step) if self._pruning is None else self._pruning.used(number)
        if sum(map(len, used.values())) == 1 and number < last:  # most steps, if few pairs are useful
            [(state, [row])] = used.items()
            self._layers.append(_Forced(step, row, state))
            return {state: _through(step, row, state, stairs)}
        sums = {state: self._sum(number, state, rows, stairs) for state, rows in used.items()}
        self._layers.append(_Layer.of(step, {state: origins for state, (_, origins) in sums.items()}))
        return {state: found for state, (found, _) in sums.items() if len(found)}

    def _sum(self, number: int, state: int, used: Sequence[int], stairs: Mapping[int, Staircase]) -> TracedStaircase:
        """The staircase of one state after one step, over the useful rows of the pairs that lead there."""
        sources = []
        for row in used:
            source = _through(self._elimination.steps[number], row, state, stairs)
            steps = np.arange(len(source))
            if self._pruning is not None:
                steps = self._pruning.plans(number, state, source).nonzero()[0]
                source = source[steps]
            sources.append((source, Origins(np.full(len(steps), row), steps)))
        return self._rounded(sources)

    def _rounded(self, sources: Sequence[TracedStaircase]) -> TracedStaircase:
        limit = self._rounding
        if sum(len(source) for source, _ in sources) > limit.sorted or limit.lossless:
            self.rounded |= not limit.lossless
            return bucketed(sources, limit.width)
        found = merge_staircases(sources)
        if len(found[0]) <= limit.steps:
            return found
        short = thinned(found, limit.width)
        self.rounded |= len(short[0]) < len(found[0])
        return short


def _everything(step: EliminationStep) -> dict[int, Sequence[int]]:
    """All pairs of a step, by the state they lead to."""
    return dict.fromkeys(range(step.states), range(len(step.pairs)))


def _through(step: EliminationStep, row: int, state: int, stairs: Mapping[int, Staircase]) -> Staircase:
    """The staircase of the state before a pair, with the pair's cost and damage added."""
    pair = step.pairs.item(row, state)
    before, option = divmod(pair, len(step.damages))
    return stairs.get(before, EMPTY_STAIRCASE).plus(step.prices.item(pair), step.damages.item(option))


@dataclass(frozen=True)
class _Forced:
    """A step with one useful pair: its staircase has the same steps as the one before."""

    step: EliminationStep
    row: int
    state: int

    def back(self, states: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
        """Implements `_Layer.back`."""
        before, option = divmod(self.step.pairs.item(self.row, self.state), len(self.step.damages))
        return np.full_like(states, before), option, ends


@dataclass(frozen=True)
class _Layer:
    """The origins of all staircases after one step, concatenated; those of a state begin at its offset."""

    step: EliminationStep
    offsets: np.ndarray  # (k,)
    origins: Origins

    @staticmethod
    def of(step: EliminationStep, origins: Mapping[int, Origins]) -> _Layer:
        """The layer of the states that were reached, in ascending order."""
        lengths = np.zeros(step.states, dtype=np.intp)
        for state, own in origins.items():
            lengths[state] = len(own.source)
        parts = origins.values()
        joint = Origins(_small([o.source for o in parts]), _small([o.step for o in parts]))
        return _Layer(step, np.cumsum(lengths) - lengths, joint)

    def back(self, states: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n,) states before, options taken and steps of the staircases before, for (n,) states and steps after."""
        origins = self.origins[self.offsets[states] + ends]
        before, options = np.divmod(self.step.pairs[origins.source, states], len(self.step.damages))
        return before, options, origins.step


def _small(parts: Sequence[np.ndarray]) -> np.ndarray:
    whole = np.concatenate([NONE, *parts])
    return whole.astype(np.min_scalar_type(int(whole.max(initial=0))))
