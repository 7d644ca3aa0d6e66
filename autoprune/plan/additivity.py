"""Tests whether damages add up: the sum of single-unit damages against the damage of the whole network.

Methods that plan by single-unit damages assume additivity; Sieberling et al. 2024 (EvoPress,
https://arxiv.org/abs/2410.14649) show a network without it. So every run reports how far it holds there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.plan.damage_model import DamageModel
from autoprune.plan.damages import damage_table, damages_by_levels, reference


@dataclass(frozen=True)
class Additivity:
    """The damage of one network that changes several units: predicted as a sum, and measured as a whole."""

    candidate: Candidate
    predicted: float
    measured: float

    @property
    def gap(self) -> float:
        """Measured minus predicted damage: positive if units damage more together than one by one."""
        return self.measured - self.predicted

    @property
    def ratio(self) -> float:
        """Measured over predicted damage; NaN if the prediction is 0."""
        return self.measured / self.predicted if self.predicted > 0 else math.nan


def additivity(problem: Problem, evaluations: Sequence[Evaluation]) -> list[Additivity]:
    """One row for every measured network that changes two or more units of the reference, in order of measurement.

    Damages are relative to the reference's own; between probed levels they follow the shape that damage has in uniform
    networks (plan.damage_model). The plans of a search are among these networks, and so are those of any later phase.
    Networks with a changed unit that was never probed are left out; without probes, or if the reference was not
    measured, there are no rows.
    """
    start = reference(problem)
    known = damages_by_levels(problem, evaluations)
    own = known.get(start, math.inf)
    if not math.isfinite(own):
        return []
    table = _single_units(problem, evaluations, start)
    units = np.arange(len(start))
    rows = []
    for levels, damage in known.items():
        predicted = float(table[units, list(levels)].sum())
        joint = sum(a != b for a, b in zip(levels, start, strict=True)) > 1
        if joint and math.isfinite(damage) and math.isfinite(predicted):
            rows.append(Additivity(Candidate(levels), predicted, damage - own))
    return rows


def _single_units(problem: Problem, evaluations: Sequence[Evaluation], start: Levels) -> np.ndarray:
    """(u, l) damages of single units beyond the reference; infinite for a unit that was never probed."""
    table = damage_table(problem, evaluations)
    model = DamageModel(problem)
    model.tell(evaluations)
    units = np.arange(len(start))
    shaped = model.single_units()
    shaped = np.maximum(shaped - shaped[units, list(start)][:, None], 0.0)
    measured = {(unit, level) for unit, levels in model.probed.items() for level in levels}
    measured |= set(zip(units.tolist(), start, strict=True))
    for unit, level in np.argwhere(np.isfinite(table)).tolist():
        if (unit, level) not in measured and unit in model.probed:
            table[unit, level] = shaped[unit, level]
    return table


def additivity_summary(rows: Sequence[Additivity]) -> str:
    """One line with the median and the worst ratio of measured to predicted damage, or with the reason for none."""
    ratios = [row.ratio for row in rows if math.isfinite(row.ratio) and row.ratio > 0]
    if not ratios:
        return "no network that changes several units can be compared with probes of single units"
    worst = max(ratios, key=lambda ratio: abs(math.log(ratio)))
    return (
        f"measured over predicted damage of {len(ratios)} networks: median {median(ratios):.2f}, "
        f"furthest from 1 {worst:.2f}"
    )
