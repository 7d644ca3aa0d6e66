"""Variable elimination: the order of the units, and for each step the open units and the cost that a choice adds.

Variable elimination (Bertele and Brioschi, Nonserial Dynamic Programming, 1972; Dechter, Bucket elimination, Artificial
Intelligence 113, 1999, https://doi.org/10.1016/S0004-3702(99)00059-4), along a path: a unit enters, its options are
priced with those of the open units it shares a table with, and every unit whose neighbours have all entered is closed,
that is, minimised over. The states between two steps are the joint options of the open units: one in a sum, a unit's
levels in a chain or a star, products of few units' levels in a tree or along the stages of a residual network.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.plan.exact.terms import Scope, Terms

STARTS = 16  # number of first units tried


@dataclass(frozen=True)
class EliminationStep:
    """One unit enters. `prices` has one axis for each open unit and a last one for the unit's own (l,) options.

    `kept` are the axes of `prices` that stay open after the step. Letters: s open states before, k after, and c joint
    options of the units that close, so that every one of k states is reached from c (state, option) pairs.
    """

    unit: int
    prices: np.ndarray
    damages: np.ndarray  # (l,)
    kept: tuple[int, ...]

    @functools.cached_property
    def pairs(self) -> np.ndarray:
        """(c, k) indices into the flattened `prices` that lead to each state: state before * l + option."""
        closed = [axis for axis in range(self.prices.ndim) if axis not in self.kept]
        entries = np.arange(self.prices.size).reshape(self.prices.shape).transpose(*closed, *self.kept)
        return np.ascontiguousarray(entries.reshape(-1, self.states))

    @functools.cached_property
    def before(self) -> np.ndarray:
        """(c, k) the state before each pair."""
        return self.pairs // len(self.damages)

    @functools.cached_property
    def states(self) -> int:
        """The number k of joint options of the units open after the step."""
        return math.prod(self.prices.shape[axis] for axis in self.kept)


@dataclass(frozen=True)
class Elimination:
    """Steps that sum up to a cost and a damage for every choice of options.

    Letter: t pairs of all steps, step after step, the (c, k) pairs of each in row-major order.
    """

    steps: tuple[EliminationStep, ...]
    constant: float

    @property
    def transitions(self) -> int:
        """The number of prices that all steps look at."""
        return sum(step.prices.size for step in self.steps)

    @property
    def states(self) -> int:
        return sum(step.states for step in self.steps)

    @functools.cached_property
    def starts(self) -> np.ndarray:
        """(steps + 1,) the offset of each step's pairs among the t pairs, and the end of the last."""
        return np.cumsum([0, *(step.prices.size for step in self.steps)])

    @functools.cached_property
    def added(self) -> np.ndarray:
        """(t, 2) the damage and the cost that each pair adds."""
        damages = [step.damages[step.pairs % len(step.damages)].ravel() for step in self.steps]
        costs = [step.prices.ravel()[step.pairs].ravel() for step in self.steps]
        return np.stack([np.concatenate(damages), np.concatenate(costs)], axis=1)

    def parts(self, values: np.ndarray) -> Iterator[np.ndarray]:
        """Splits (t, b) values into those of each step's pairs, (c, k, b)."""
        for step, start, end in zip(self.steps, self.starts[:-1], self.starts[1:], strict=True):
            yield values[start:end].reshape(*step.pairs.shape, -1)

    def completions(self, values: np.ndarray) -> list[np.ndarray]:
        """For each step, the (k, b) least sums of (t, b) values that later steps add to each state."""
        value, found = np.zeros((1, values.shape[1])), []
        for step, own in reversed(list(zip(self.steps, self.parts(values), strict=True))):
            found.append(value)
            sums = np.empty((step.prices.size, values.shape[1]))
            sums[step.pairs] = own + value
            value = sums.reshape(-1, len(step.damages), values.shape[1]).min(axis=1)
        return found[::-1]


def eliminate(terms: Terms, damages: Sequence[np.ndarray], limit: int) -> Elimination | None:
    """The steps for a cost and the (l,) damages of each unit; None if they take more than `limit` transitions."""
    order = _best_order(terms.sizes, tuple(terms.tables), limit)
    if order is None:
        return None
    steps = _steps(terms, damages, order, _neighbours(len(terms.sizes), terms.tables))
    return Elimination(tuple(steps), terms.constant)


@functools.lru_cache  # a search plans for one cost again and again
def _best_order(sizes: tuple[int, ...], scopes: tuple[Scope, ...], limit: int) -> tuple[int, ...] | None:
    """The order with the fewest transitions found; None if all take more than `limit`."""
    neighbours = _neighbours(len(sizes), scopes)
    best: tuple[int, list[int]] | None = None
    for start in _starts(neighbours):
        found = _order(start, neighbours, sizes, best[0] if best else limit)
        best = min(best, found) if best and found else best or found
    return tuple(best[1]) if best else None


def _neighbours(units: int, scopes: Iterable[Scope]) -> list[set[int]]:
    neighbours: list[set[int]] = [set() for _ in range(units)]
    for scope in scopes:
        for a, b in itertools.permutations(scope, 2):
            neighbours[a].add(b)
    return neighbours


def _starts(neighbours: Sequence[set[int]]) -> list[int]:
    """Start candidates: units with the fewest neighbours (ends of chains) first, the last of equal ones first."""
    coupled = [unit for unit, others in enumerate(neighbours) if others]
    if not coupled:
        return [len(neighbours) - 1]
    return sorted(coupled, key=lambda unit: (len(neighbours[unit]), -unit))[:STARTS]


def _order(
    start: int, neighbours: Sequence[set[int]], sizes: Sequence[int], limit: int
) -> tuple[int, list[int]] | None:
    """Transitions and an order from one start; each next unit is the one that leaves the fewest states open.

    Units without neighbours come last, from the last to the first: then the first of equal plans is found first.
    """
    total, order, left, open_ = 0, list[int](), set(range(len(sizes))), set[int]()
    unit = start
    while True:
        total += math.prod(sizes[u] for u in open_) * sizes[unit]
        if total > limit:
            return None
        order.append(unit)
        left.remove(unit)
        open_ = _open_after(unit, open_, left, neighbours)
        if not left:
            return total, order
        nearby = {v for u in open_ for v in neighbours[u] & left}
        unit = min(nearby or left, key=lambda v: _rank(v, open_, left, neighbours, sizes))


def _open_after(unit: int, open_: set[int], left: set[int], neighbours: Sequence[set[int]]) -> set[int]:
    """The open units once `unit` has entered: those with a neighbour among the ones left."""
    return {u for u in (*open_, unit) if neighbours[u] & left}


def _rank(
    unit: int, open_: set[int], left: set[int], neighbours: Sequence[set[int]], sizes: Sequence[int]
) -> tuple[bool, int, int, int]:
    after = _open_after(unit, open_, left - {unit}, neighbours)
    return not neighbours[unit], math.prod(sizes[u] for u in after), sizes[unit] if neighbours[unit] else 0, -unit


def _steps(
    terms: Terms, damages: Sequence[np.ndarray], order: Sequence[int], neighbours: Sequence[set[int]]
) -> Iterator[EliminationStep]:
    left, axes = set(order), list[int]()
    for unit in order:
        left.remove(unit)
        axes = [*axes, unit]
        entered = [scope for scope in terms.tables if unit in scope and not left & set(scope)]
        prices = np.zeros([terms.sizes[u] for u in axes])
        for scope in entered:
            prices += _aligned(terms.tables[scope], scope, axes)
        after = _open_after(unit, set(axes), left, neighbours)
        kept = tuple(axis for axis, u in enumerate(axes) if u in after)
        yield EliminationStep(unit, prices, damages[unit], kept)
        axes = [axes[axis] for axis in kept]


def _aligned(table: np.ndarray, scope: Sequence[int], axes: Sequence[int]) -> np.ndarray:
    """A table with its axes in the order of `axes`, and axes of length 1 for units outside its scope."""
    present = [unit for unit in axes if unit in scope]
    table = table.transpose([scope.index(unit) for unit in present])
    shape = iter(table.shape)
    return table.reshape([next(shape) if unit in scope else 1 for unit in axes])
