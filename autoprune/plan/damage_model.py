"""Estimates the damage of each unit's levels from everything measured so far.

Three sources, each filling the gaps of the one before:

- the uniform networks show how damage grows with the share removed: the shape of all rows;
- networks that change one unit of the reference show the size of that unit's row at the probed levels; between these
  the ratio to the shape is interpolated, and unprobed units share the part of the uniform networks' damage that the
  probed ones do not explain;
- all other networks show where sums of rows are off: the logarithm of measured damage over the sum is regressed on each
  unit's share of the sum, after removing a line in the sum's logarithm. Non-additivity that depends on a network's size
  alone changes no plan; a unit that does worse than its probe suggests does.

The second is the additive model of RD_PRUNE and OBC (searchers.fronts.additive). The last is a ridge regression (Hoerl
and Kennard, Technometrics 12, 1970, https://doi.org/10.1080/00401706.1970.10488634) around it, so that plans learn from
earlier plans; SPDY (Frantar and Alistarh, ICML 2022, https://arxiv.org/abs/2201.13096) draws such factors at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.plan.damages import damages_by_levels, reference
from autoprune.plan.ladder import branches_beside_widths, uniform_levels

REGRESSED = 512  # number of most recent networks in the regression
FACTOR_RIDGE = 0.1  # squared error of a prediction over squared deviation of factors, in logarithms
LARGEST_LOG_FACTOR = math.log(8.0)  # largest factor of a row, or of its inverse, in logarithms
SHARED = 0.25  # least damage of an unprobed unit, as a share of a probed one's
NOISE = 0.01  # share of the largest damage below which ratios of damages mean little


class DamageModel:
    """A table of damages for plans (see plan.allocation) that is refined with every evaluation.

    >>> model.tell(evaluations)
    >>> model.table()        # (u, l) finite, except where a unit has no such level or a probe of it failed
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._kept = [np.array(counts) for counts in problem.space.levels]
        self._removed = [1 - shares for shares in problem.space.shares]  # (l,)
        self._reference = reference(problem)
        branches = branches_beside_widths(problem.space)
        self._widths = np.setdiff1d(np.arange(len(self._kept)), branches)
        rows = uniform_levels(problem.space)
        rows = rows[~rows[:, branches].any(axis=1)]  # networks whose branches all stay
        self._uniform = {tuple(row): self._share(row) for row in rows.tolist()}
        self._damages: dict[Levels, float] = {}
        self.probed: dict[int, dict[int, Levels]] = {}  # networks that change one unit, by unit and level
        self._others: list[Levels] = []  # networks that change several units

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for levels, damage in damages_by_levels(self._problem, evaluations).items():
            if levels not in self._damages:
                self._damages[levels] = damage
                self._sort(levels)

    def _sort(self, levels: Levels) -> None:
        changed = [unit for unit, (a, b) in enumerate(zip(levels, self._reference, strict=True)) if a != b]
        if len(changed) == 1:
            self.probed.setdefault(changed[0], {})[levels[changed[0]]] = levels
        elif changed and math.isfinite(self._damages[levels]):
            self._others.append(levels)

    def table(self) -> np.ndarray:
        """(u, l) damages above the dense network's."""
        table = self.single_units()
        table *= self._factors(table)[:, None]
        for unit, probes in self.probed.items():
            failed = [level for level, levels in probes.items() if level and math.isinf(self._damages[levels])]
            table[unit, failed] = np.inf
        return table

    def single_units(self) -> np.ndarray:
        """(u, l) damages of single units, before the correction by other networks; infinite beyond a unit's levels."""
        rows = self._rows()
        table = np.full((len(rows), max(map(len, rows))), np.inf)
        for unit, row in enumerate(rows):
            table[unit, : len(row)] = row
        return table

    def _share(self, levels: Sequence[int]) -> float:
        return float(np.mean([self._removed[unit][levels[unit]] for unit in self._widths]))

    def _zero(self) -> float:
        """The dense network's damage: measured, else 0 by definition, else the least one measured."""
        known = self._damages.get(self._problem.space.dense.levels, math.inf)
        if math.isfinite(known):
            return known
        least = min(self._damages.values(), default=0.0)
        return 0.0 if self._problem.distortion is not None or math.isinf(least) else least

    def _rows(self) -> list[np.ndarray]:
        """(l,) damages of each unit from its probes; widths without probes share the remainder.

        A branch without a probe has as much as such a width.
        """
        shares, total = self._uniform_damages()
        count = len(self._widths)
        shapes = [_grown(removed, shares, total) / count for removed in self._removed]
        ratios = [self._ratios(unit, shape) for unit, shape in enumerate(shapes)]
        sizes = [float(ratio[-1]) for unit in self._widths if (ratio := ratios[unit]) is not None]
        missing = count - len(sizes)
        left = max((count - sum(sizes)) / max(missing, 1), SHARED * float(np.mean(sizes or [1.0])), 1e-6)
        rows = [shape * (left if ratio is None else ratio) for shape, ratio in zip(shapes, ratios, strict=True)]
        return [np.maximum.accumulate(row) for row in rows]

    def _uniform_damages(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) shares removed and rising damages of the uniform networks; a quadratic law if there are none."""
        zero = self._zero()
        pairs = sorted((share, self._damages.get(levels, math.inf) - zero) for levels, share in self._uniform.items())
        known = [(share, damage) for share, damage in pairs if share > 0 and 0 < damage < math.inf]
        shares, damage = np.array(known or [(1.0, 1.0)]).T
        return shares, np.maximum.accumulate(damage)

    def _ratios(self, unit: int, shape: np.ndarray) -> np.ndarray | None:
        """(l,) ratios of the unit's probed damages to those of the shape; None without a usable probe."""
        own = self._reference[unit]
        start = self._damages.get(self._reference, math.inf)
        if math.isinf(start) and not any(self._reference):
            start = self._zero()
        known = [
            (level, (self._damages[levels] - start) / (shape[level] - shape[own]))
            for level, levels in sorted(self.probed.get(unit, {}).items())
            if math.isfinite(self._damages[levels] - start) and shape[level] != shape[own]
        ]
        if not known:
            return None
        levels, ratios = np.array(known).T
        return np.asarray(np.interp(np.arange(len(shape)), levels, np.maximum(ratios, 1e-6)))

    def _factors(self, table: np.ndarray) -> np.ndarray:
        """(u,) factors by which sums of the table's rows were off, unit by unit."""
        units = np.arange(len(table))
        rows = np.array(self._others[-REGRESSED:], dtype=np.int64).reshape(-1, len(table))
        measured = np.array([self._damages[levels] for levels in self._others[-REGRESSED:]]) - self._zero()
        parts = table[units, rows]  # (n, u)
        sums = parts.sum(axis=1)
        usable = (measured > 0) & (sums > 0)
        if usable.sum() < 2:
            return np.ones(len(table))
        parts, sums, measured = parts[usable], sums[usable], measured[usable]
        weights = (measured / (measured + NOISE * measured.max())) ** 2
        line = np.stack([np.ones(len(sums)), np.log(sums)], axis=1)
        design = np.concatenate([line, parts / sums[:, None]], axis=1)
        ridge = np.diag([1e-6, FACTOR_RIDGE, *[FACTOR_RIDGE] * len(table)])
        gram = design.T @ (weights[:, None] * design) + ridge
        fitted = np.linalg.solve(gram, design.T @ (weights * np.log(measured / sums)))
        return np.asarray(np.exp(np.clip(fitted[2:], -LARGEST_LOG_FACTOR, LARGEST_LOG_FACTOR)))


def _grown(removed: np.ndarray, shares: np.ndarray, damage: np.ndarray) -> np.ndarray:
    """(l,) damages at (l,) shares removed, log-interpolated between (n,) known points; quadratic below the first."""
    inside = np.exp(np.interp(np.log(np.maximum(removed, shares[0])), np.log(shares), np.log(damage)))
    beyond = np.maximum(removed / shares[-1], 1.0) ** 2  # a unit may lose a larger share than the smallest network
    return np.asarray(inside * beyond * np.minimum(removed / shares[0], 1.0) ** 2)
