"""Widths of removed branches: they have no cost and no effect, so networks that differ only in them are the same."""

from __future__ import annotations

from collections.abc import Iterable

from autoprune.core.cost import Polynomial
from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.plan.ladder import branches_beside_widths


class IdleWidths:
    """Gives networks the levels that they have in common with all networks which differ only in idle widths.

    A width is idle if every monomial of the costs that it appears in has a removed branch as another factor.

    >>> idle.dense((1, 3, 0))    # the first unit is the branch that the second one is in, which is removed
    (1, 0, 0)
    """

    def __init__(self, problem: Problem) -> None:
        units = problem.space.units
        branches = {units[branch]: branch for branch in branches_beside_widths(problem.space)}
        place = {name: unit for unit, name in enumerate(units)}
        polynomials = [cost for cost in problem.costs.costs.values() if isinstance(cost, Polynomial)]
        self._around: dict[int, set[frozenset[int]]] = {}  # the branches beside each width, monomial by monomial
        for monomial in (m for cost in polynomials if branches for m in cost.terms):
            beside = frozenset(branches[name] for name in monomial if name in branches)
            for name in monomial:
                if name in place and name not in branches:
                    self._around.setdefault(place[name], set()).add(beside)

    def dense(self, levels: Iterable[int]) -> Levels:
        """(u,) levels with all idle widths dense."""
        row = tuple(levels)
        return tuple(0 if self._is_idle(unit, row) else level for unit, level in enumerate(row))

    def _is_idle(self, unit: int, levels: Levels) -> bool:
        around = self._around.get(unit, ())
        return bool(around) and all(any(levels[branch] for branch in beside) for beside in around)
