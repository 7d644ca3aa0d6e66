"""The ladder of uniform networks, which keep the same share of every unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.core.problem import Problem
from autoprune.core.space import Levels, SearchSpace

ROUND_SHARES = 20  # equal steps from 0 to the dense network's cost, where plans and members are wanted beside branches


def ladder(problem: Problem, rungs: int) -> list[Levels]:
    """At most `rungs` uniform networks within the bounds, evenly chosen from the widest to the narrowest."""
    rows = uniform_levels(problem.space)
    rows = rows[problem.feasible(rows)]
    picked = np.unique(np.linspace(0, len(rows) - 1, min(rungs, len(rows))).round().astype(int))
    return [tuple(row) for row in rows[picked].tolist()]


def uniform_levels(space: SearchSpace) -> np.ndarray:
    """(n, u) every level vector that keeps the same share everywhere, each unit at its nearest level.

    From dense to smallest. Of two levels equally near, the one that keeps more is taken. Branches beside widths stay,
    except in the smallest network.
    """
    borders = [(share[:-1] + share[1:]) / 2 for share in space.shares]  # below a border the next level is nearer
    for branch in branches_beside_widths(space):
        borders[branch] = np.full(1, -1.0)  # below all others
    # one level changes at each border, so shares just below the borders give every uniform network
    cuts = np.concatenate([[np.inf], np.unique(np.concatenate(borders))[::-1]])
    rows = np.stack([(cuts[:, None] <= border).sum(axis=1) for border in borders], axis=1)  # (n, u)
    return np.asarray(rows, dtype=np.int64)


def branches_beside_widths(space: SearchSpace) -> list[int]:
    """The positions of the units that are kept or removed as a whole; none in a space without other units."""
    found = [unit for unit, counts in enumerate(space.levels) if counts == (1, 0)]
    return found if len(found) < len(space.units) else []


def removes_branches(space: SearchSpace, levels: Levels) -> bool:
    """Whether a network lacks branches that are searched beside widths."""
    return any(levels[branch] for branch in branches_beside_widths(space))


def coarse_to_fine(items: Sequence[Levels]) -> list[Levels]:
    """Reorders items: both ends, then the middle, then the middles of the halves, and so on."""
    order = [0, len(items) - 1] if len(items) > 1 else list(range(len(items)))
    spans = [(0, len(items) - 1)]
    for first, last in spans:  # grows while it runs: breadth first
        middle = (first + last) // 2
        if last - first > 1:
            order.append(middle)
            spans += [(first, middle), (middle, last)]
    return [items[index] for index in order]
