"""Hard budgets: moves level vectors until they are within the bounds, and covers the reachable range of a cost.

A candidate outside the bounds is moved, not rejected: along a random path of single level steps, up to the first point
that fits. Costs of a stretch of the path are evaluated in one call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.errors import InfeasibleBudget

STRETCH = 64  # number of path points priced in one call
MUTATION_STEPS = 3  # largest number of units a mutation moves, and of levels it moves them by
DIRECTIONS = np.array([-1, 1])


def repair(problem: Problem, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(u,) levels within all bounds, reached from (u,) levels by random single steps that keep less.

    Levels within the bounds are returned unchanged.

    Raises:
        InfeasibleBudget: even the smallest network is outside the bounds.
    """
    levels = np.asarray(levels, dtype=np.int64)
    if problem.feasible(levels[None])[0]:
        return levels
    for path in _stretches(levels, problem.space.sizes - 1, rng):
        fits = problem.feasible(path)
        if fits.any():
            return np.asarray(path[fits.argmax()])
    raise _unreachable(problem, "the bounds " + ", ".join(str(bound) for bound in problem.bounds))


def fit_to_budget(
    problem: Problem, levels: np.ndarray, rng: np.random.Generator, cost: str, target: float
) -> np.ndarray:
    """(u,) levels within all bounds, with a cost of at most `target` that no single step up would keep.

    Steps down at random until the target is met, then up at random as long as it stays met.

    Raises:
        InfeasibleBudget: no point on the way down to the smallest network meets the target.
    """
    levels = np.asarray(levels, dtype=np.int64)
    for path in _down(levels, problem.space.sizes - 1, rng):
        fits = _admits(problem, path, cost, target)
        if fits.any():
            return _fill(problem, path[fits.argmax()], rng, cost, target)
    raise _unreachable(problem, f"{cost} <= {target:g}")


def mutated(problem: Problem, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(u,) levels with one to three units moved by one to three levels up or down, clipped to the unit's range."""
    units = rng.permutation(len(levels))[: rng.integers(1, MUTATION_STEPS + 1)]
    steps = rng.integers(1, MUTATION_STEPS + 1, size=len(units)) * DIRECTIONS[rng.integers(2, size=len(units))]
    moved = levels.copy()
    moved[units] = np.minimum(np.maximum(levels[units] + steps, 0), problem.space.sizes[units] - 1)
    return moved


def stratified(problem: Problem, rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """n random level vectors, (u,) each, whose costs cover the reachable range evenly: one in each of n strata.

    Levels drawn uniformly would concentrate in the middle of the range, since a cost is a sum over many units.
    """
    cost = primary_cost(problem)
    least, most = cost_range(problem, cost)
    targets = least + (most - least) * (np.arange(n) + rng.random(n)) / max(n, 1)
    return [
        fit_to_budget(problem, rng.integers(0, problem.space.sizes), rng, cost, float(target)) for target in targets
    ]


def _fill(problem: Problem, levels: np.ndarray, rng: np.random.Generator, cost: str, target: float) -> np.ndarray:
    """Steps up at random until no single step fits any more; each round moves or drops at least one unit."""
    open_ = np.flatnonzero(levels > 0)
    while len(open_):
        singles = np.repeat(levels[None], len(open_), axis=0)
        singles[np.arange(len(open_)), open_] -= 1
        open_ = open_[_admits(problem, singles, cost, target)]
        ends = levels.copy()
        ends[open_] = 0
        for path in _stretches(levels, ends, rng):
            fits = _admits(problem, path, cost, target)
            ahead = len(path) if fits.all() else int(fits.argmin())
            levels = path[ahead - 1] if ahead else levels
            if ahead < len(path):
                break
        open_ = open_[levels[open_] > 0]
    return levels


def _admits(problem: Problem, levels: np.ndarray, cost: str, target: float) -> np.ndarray:
    """(n,) True where the cost is at most the target and all bounds hold."""
    limits = [(cost, target), *((bound.name, bound.value) for bound in problem.bounds)]
    values = problem.cost_values(levels, {name for name, _ in limits})
    inside: np.ndarray = np.logical_and.reduce([values[name] <= limit for name, limit in limits])
    return inside


def _down(levels: np.ndarray, ends: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    yield levels[None]
    yield from _stretches(levels, ends, rng)


def _stretches(levels: np.ndarray, ends: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """A random path of single level steps from (u,) levels to (u,) ends, without its start, in (n, u) stretches."""
    steps = np.repeat(np.arange(len(levels)), np.abs(ends - levels))
    rng.shuffle(steps)
    sign = np.sign(ends - levels)
    for start in range(0, len(steps), STRETCH):
        units = steps[start : start + STRETCH]
        moves = np.zeros((len(units), len(levels)), dtype=np.int64)
        moves[np.arange(len(units)), units] = sign[units]
        path = levels + np.cumsum(moves, axis=0)
        yield path
        levels = path[-1]


def _unreachable(problem: Problem, wanted: str) -> InfeasibleBudget:
    values = problem.cost_values(np.array([problem.space.smallest.levels]))
    least = ", ".join(f"{name} = {value[0]:g}" for name, value in values.items())
    return InfeasibleBudget(
        f"expected to reach {wanted}, but the smallest network of this space has {least}. Raise the budget, or allow "
        "fewer kept positions."
    )
