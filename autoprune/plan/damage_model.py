"""What each unit's levels seem to do to a network, from everything measured so far, be it much or little.

Three sources, each for what the one before leaves open:

- the uniform networks say how damage grows with the share removed: the shape of all rows;
- networks that change one unit of the reference say how large a unit's row is, at the levels probed, and between them
  the ratio to the shape is interpolated; units not probed yet share what the uniform networks did beyond the probed
  ones;
- all other networks say where sums of rows are off: their damage over the sum, in logarithms, is regressed on the share
  that each unit has in the sum, a line in the sum's logarithm being left aside. What does not add up because a network
  is small as a whole changes no plan; what makes one unit worse than its probe says does.

The second is the additive model of RD_PRUNE and OBC (search.additive). The last is a ridge regression (Hoerl and
Kennard, Technometrics 12, 1970, https://doi.org/10.1080/00401706.1970.10488634) around it, so that plans learn from how
plans did; SPDY (Frantar and Alistarh, ICML 2022, https://arxiv.org/abs/2201.13096) draws such factors at random.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Levels
from autoprune.plan.damages import damages, reference
from autoprune.plan.ladder import uniform_levels

RECENT = 512  # networks that factors are regressed on, the last ones
RIDGE = 0.1  # squared error of a prediction over squared deviation of factors, in logarithms
FURTHEST = math.log(8.0)  # of a factor from 1
SHARED = 0.25  # of a probed unit's size: what an unprobed one has at least
NOISE = 0.01  # of the largest damage: below it ratios of damages mean little


class DamageModel:
    """Tables of damages for plans (see search.allocation), better the more is told.

    >>> model.tell(evaluations)
    >>> model.table()        # (u, l) finite but where a unit has no such level, or a probe of it failed
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._kept = [np.array(counts) for counts in problem.space.levels]
        self._removed = [1 - shares for shares in problem.space.shares]  # (l,)
        self._reference = reference(problem)
        self._uniform = {tuple(row): self._share(row) for row in uniform_levels(problem.space).tolist()}
        self._damages: dict[Levels, float] = {}
        self.probed: dict[int, dict[int, Levels]] = {}  # networks that change one unit, by it and its level
        self._others: list[Levels] = []  # that change several units

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for levels, damage in damages(self._problem, evaluations).items():
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
        """(u, l) the same before other networks corrected it, what single units do: infinite beyond a unit's levels."""
        rows = self._rows()
        table = np.full((len(rows), max(map(len, rows))), np.inf)
        for unit, row in enumerate(rows):
            table[unit, : len(row)] = row
        return table

    def _share(self, levels: Sequence[int]) -> float:
        return float(np.mean([removed[level] for removed, level in zip(self._removed, levels, strict=True)]))

    def _zero(self) -> float:
        """The dense network's damage: measured, or 0 by definition, or the least there is."""
        known = self._damages.get(self._problem.space.dense.levels, math.inf)
        if math.isfinite(known):
            return known
        least = min(self._damages.values(), default=0.0)
        return 0.0 if self._problem.distortion is not None or math.isinf(least) else least

    def _rows(self) -> list[np.ndarray]:
        """(l,) damages of each unit as its probes say; those of units without any share what is left."""
        shares, total = self._uniform_damages()
        count = len(self._removed)
        shapes = [_grown(removed, shares, total) / count for removed in self._removed]
        ratios = [self._ratios(unit, shape) for unit, shape in enumerate(shapes)]
        sizes = [float(ratio[-1]) for ratio in ratios if ratio is not None]
        missing = count - len(sizes)
        left = max((count - sum(sizes)) / max(missing, 1), SHARED * float(np.mean(sizes or [1.0])), 1e-6)
        rows = [shape * (left if ratio is None else ratio) for shape, ratio in zip(shapes, ratios, strict=True)]
        return [np.maximum.accumulate(row) for row in rows]

    def _uniform_damages(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) shares removed and rising damages of the uniform networks; a square law where there are none."""
        zero = self._zero()
        pairs = sorted((share, self._damages.get(levels, math.inf) - zero) for levels, share in self._uniform.items())
        known = [(share, damage) for share, damage in pairs if share > 0 and 0 < damage < math.inf]
        shares, damage = np.array(known or [(1.0, 1.0)]).T
        return shares, np.maximum.accumulate(damage)

    def _ratios(self, unit: int, shape: np.ndarray) -> np.ndarray | None:
        """(l,) what the unit's probes did over what its shape says; None without a usable probe."""
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
        """(u,) by how much sums of the table's rows were off, unit by unit."""
        units = np.arange(len(table))
        rows = np.array(self._others[-RECENT:], dtype=np.int64).reshape(-1, len(table))
        measured = np.array([self._damages[levels] for levels in self._others[-RECENT:]]) - self._zero()
        parts = table[units, rows]  # (n, u)
        sums = parts.sum(axis=1)
        usable = (measured > 0) & (sums > 0)
        if usable.sum() < 2:
            return np.ones(len(table))
        parts, sums, measured = parts[usable], sums[usable], measured[usable]
        weights = (measured / (measured + NOISE * measured.max())) ** 2
        line = np.stack([np.ones(len(sums)), np.log(sums)], axis=1)
        design = np.concatenate([line, parts / sums[:, None]], axis=1)
        ridge = np.diag([1e-6, RIDGE, *[RIDGE] * len(table)])
        gram = design.T @ (weights[:, None] * design) + ridge
        fitted = np.linalg.solve(gram, design.T @ (weights * np.log(measured / sums)))
        return np.asarray(np.exp(np.clip(fitted[2:], -FURTHEST, FURTHEST)))


def _grown(removed: np.ndarray, shares: np.ndarray, damage: np.ndarray) -> np.ndarray:
    """(l,) damage at (l,) shares removed, along (n,) known points in logarithms; below the first by a square law."""
    inside = np.exp(np.interp(np.log(np.maximum(removed, shares[0])), np.log(shares), np.log(damage)))
    beyond = np.maximum(removed / shares[-1], 1.0) ** 2  # a unit may lose a larger share than the smallest network
    return np.asarray(inside * beyond * np.minimum(removed / shares[0], 1.0) ** 2)
