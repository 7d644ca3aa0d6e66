"""Damage of single-unit changes: which networks to probe, and the table that plans are made from.

A table is a (u, l) array: row u holds the damage of each level of unit u with the others as in the reference network,
relative to the unit's widest level; infinite where there is no such level or its probe failed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Levels
from autoprune.errors import ConfigError
from autoprune.plan.ladder import coarse_to_fine, uniform_levels


def reference(problem: Problem) -> Levels:
    """The network that single units are changed in: the widest uniform one in which each unit may be dense.

    This is the dense network unless bounds forbid it, and the smallest one if no uniform network qualifies.
    """
    for row in uniform_levels(problem.space):
        opened = np.repeat(row[None], len(row), axis=0)
        np.fill_diagonal(opened, 0)
        if problem.feasible(np.concatenate([row[None], opened])).all():
            return tuple(row.tolist())
    return problem.space.smallest.levels


def probes(problem: Problem, per_unit: int | None = None) -> list[Levels]:
    """The reference, then the networks that change one unit of it, within the bounds, all units early.

    Each round changes every unit once: first to its smallest level, then to levels between. `per_unit` caps the levels
    probed besides dense and the reference's own; they are spread evenly and include the smallest.
    """
    start = reference(problem)
    orders = [_probed(len(counts), level, per_unit) for counts, level in zip(problem.space.levels, start, strict=True)]
    rows = [start]
    for round_ in itertools.zip_longest(*orders):
        changes = [(unit, level) for unit, level in enumerate(round_) if level is not None]
        rows += [(*start[:unit], level, *start[unit + 1 :]) for unit, level in changes]
    inside = problem.feasible(np.array(rows))
    return [row for row, fits in zip(rows, inside, strict=True) if fits]


def _probed(size: int, own: int, per_unit: int | None) -> list[int]:
    """The levels of one unit to probe, in order: the smallest, the widest, then midpoints."""
    count = min(size - 1, size - 1 if per_unit is None else per_unit)
    if count == 0:
        return []
    spread = np.unique(np.linspace(size - 1, 1, count).round().astype(int)).tolist()
    levels = sorted({*spread, 0} - {own}, reverse=True)
    return [level for (level,) in coarse_to_fine([(level,) for level in levels])]


def damage_name(problem: Problem) -> str:
    """The measurement that damage is read from: the problem's distortion, else its first objective besides costs."""
    if problem.distortion is not None:
        return problem.distortion
    names = [o.name for o in problem.objectives if o.name not in problem.costs.names]
    if not names:
        raise ConfigError(
            f"expected an objective besides the costs {list(problem.costs.names)}, or a distortion, to plan by; got "
            f"objectives {[o.name for o in problem.objectives]}. Add one such as accuracy."
        )
    return names[0]


def damage_table(problem: Problem, evaluations: Sequence[Evaluation]) -> np.ndarray:
    """(u, l) damages from the evaluations that change at most one unit of the reference; others are ignored.

    Damage below that of a unit's widest level counts as 0, and within a unit damage never falls as less is kept (a
    running maximum), so that a lucky probe is not exploited. Levels between measured ones are interpolated linearly in
    the kept count; a failed probe's level is not allowed, nor is one beyond all measured ones.

    Raises:
        ConfigError: an ok evaluation lacks the measurement that damage is read from.
    """
    start = reference(problem)
    measured = damages_by_levels(problem, [e for e in evaluations if _changes(e, start) <= 1])
    own = reference_damage(problem, start, measured)
    rows = [_unit_row(problem, unit, start, own, measured) for unit in range(len(start))]
    table = np.full((len(rows), max(len(row) for row in rows)), np.inf)
    for unit, row in enumerate(rows):
        table[unit, : len(row)] = row
    return table


def damages_by_levels(problem: Problem, evaluations: Sequence[Evaluation]) -> dict[Levels, float]:
    """The damage of each evaluation at full fidelity, by levels, lower is better; infinite if it failed."""
    return {e.candidate.levels: _damage(problem, e) for e in evaluations if e.candidate.fidelity == 1}


def _changes(evaluation: Evaluation, start: Levels) -> int:
    return sum(a != b for a, b in zip(evaluation.candidate.levels, start, strict=True))


def _damage(problem: Problem, evaluation: Evaluation) -> float:
    """The damage of an evaluation, lower is better; infinite if it failed."""
    name = damage_name(problem)
    if not is_usable(problem, evaluation):
        return math.inf
    if name not in evaluation.values:
        raise ConfigError(
            f"expected every evaluation to hold {name!r}, which the problem names as its distortion, got "
            f"{sorted(evaluation.values)} for levels {evaluation.candidate.levels}. Measure it, or name no distortion."
        )
    value = evaluation.values[name]
    losses = [o.loss(value) for o in problem.objectives if o.name == name]
    damage = losses[0] if losses else value
    return damage if math.isfinite(damage) else math.inf


def reference_damage(problem: Problem, start: Levels, measured: dict[Levels, float]) -> float:
    """The reference's damage: measured, else 0 if it is dense, else the least one measured; infinite without any."""
    if math.isfinite(measured.get(start, math.inf)):
        return measured[start]
    if problem.distortion is not None and start == problem.space.dense.levels and start not in measured:
        return 0.0
    return min(measured.values(), default=math.inf)


def _unit_row(problem: Problem, unit: int, start: Levels, own: float, measured: dict[Levels, float]) -> np.ndarray:
    """(l,) damages of one unit; infinite where not allowed."""
    kept = np.array(problem.space.levels[unit])
    row = np.full(len(kept), np.nan)  # NaN: never probed
    for level in range(len(kept)):
        row[level] = measured.get((*start[:unit], level, *start[unit + 1 :]), math.nan)
    row[start[unit]] = own
    known = np.flatnonzero(np.isfinite(row))
    if not len(known):
        return np.full(len(kept), np.inf)
    risen = np.maximum.accumulate(np.maximum(row[known] - row[known[0]], 0.0))
    between = np.interp(kept, kept[known][::-1], risen[::-1], left=np.inf, right=np.inf)
    return np.where(np.isinf(row), np.inf, between)
