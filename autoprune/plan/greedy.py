"""Single moves priced at true costs: down to a budget with the least damage, then up again for the largest gain."""

from __future__ import annotations

import numpy as np

from autoprune.core.problem import Problem
from autoprune.errors import InfeasibleBudget


def unit_costs(problem: Problem, levels: np.ndarray, cost: str) -> np.ndarray:
    """(u, l) costs of the networks with one unit at one level and the others at (u,) levels; 0 for missing levels."""
    sizes = problem.space.sizes
    units, choices = np.nonzero(np.arange(sizes.max()) < sizes[:, None])
    rows = np.repeat(np.asarray(levels)[None], len(units), axis=0)
    rows[np.arange(len(units)), units] = choices
    table = np.zeros((len(sizes), int(sizes.max())))
    table[units, choices] = problem.cost_values(rows, (cost,))[cost]
    return table


def total_damage(damages: np.ndarray, levels: np.ndarray) -> float:
    """The sum of the (u, l) damages at (u,) levels."""
    return float(damages[np.arange(len(levels)), levels].sum())


def step_down(problem: Problem, damages: np.ndarray, cost: str, levels: np.ndarray) -> np.ndarray | None:
    """(u,) levels after the one-unit move that adds the least damage per cost saved; None if no move saves any."""
    table = unit_costs(problem, levels, cost)
    units = np.arange(len(levels))
    saved = table[units, levels][:, None] - table
    added = damages - damages[units, levels][:, None]
    usable = np.isfinite(damages) & (saved > 0)
    if not usable.any():
        return None
    return _moved(levels, np.where(usable, added / np.where(usable, saved, 1.0), np.inf))


def descend(problem: Problem, damages: np.ndarray, cost: str, budget: float, levels: np.ndarray) -> np.ndarray:
    """(u,) levels with `cost` at most `budget`, reached by single steps down; InfeasibleBudget if there are none."""
    while True:
        value = float(problem.cost_values(levels[None], (cost,))[cost][0])
        if value <= budget:
            return levels
        lower = step_down(problem, damages, cost, levels)  # terminates: every step lowers the cost
        if lower is None:
            raise InfeasibleBudget(
                f"budget {cost} <= {budget:g} cannot be reached with the levels that were measured: the least cost "
                f"found is {value:g}. Raise the budget, or measure smaller levels."
            )
        levels = lower


def ascend(problem: Problem, damages: np.ndarray, cost: str, budget: float, levels: np.ndarray) -> np.ndarray:
    """(u,) levels after the moves that remove the most damage per added cost, within the budget and all bounds."""
    while True:  # terminates: every move lowers the damage
        healed = damages[np.arange(len(levels)), levels][:, None] - damages
        units, choices = np.nonzero(healed > 0)
        rows = np.repeat(levels[None], 1 + len(units), axis=0)  # the last one as it is
        rows[np.arange(len(units)), units] = choices
        costs = problem.cost_values(rows, (cost,))[cost]
        usable = costs[:-1] <= budget
        usable[usable] = problem.feasible(rows[:-1][usable])
        if not usable.any():
            return levels
        spent = np.maximum(costs[:-1] - costs[-1], 1e-12)
        levels = rows[np.where(usable, -healed[units, choices] / spent, np.inf).argmin()]


def _moved(levels: np.ndarray, price: np.ndarray) -> np.ndarray:
    """(u,) levels after the one-unit move of least (u, l) price; the first of equal ones."""
    unit, level = np.unravel_index(int(price.argmin()), price.shape)
    moved = levels.copy()
    moved[unit] = level
    return moved
