"""Criteria order the positions of a unit by their importance; the search decides how many stay.

A criterion is a function `(weights, statistics) -> scores` that returns (n,) scores, one per position; positions with
higher scores stay longer. It declares the statistics it needs with `@needs(...)`; only these are collected. Each family
has its own file, and `CRITERIA` lists the names that jobs may use.
"""

from __future__ import annotations

from autoprune.prune.criteria.activations import (
    activation_mean,
    activation_norm,
    activation_variance,
    flap,
    relative,
    wanda,
)
from autoprune.prune.criteria.contract import (
    ConsumerStatistics,
    Criterion,
    UnitStatistics,
    UnitWeights,
    needs,
    needs_of,
    order_positions,
)
from autoprune.prune.criteria.experts import mone, reap
from autoprune.prune.criteria.gradients import fisher, hap, taylor, undecayed
from autoprune.prune.criteria.magnitudes import bn_scale, fpgm, l1, l2, lamp, pq, random
from autoprune.prune.criteria.surgeon import obs

CRITERIA: dict[str, Criterion] = {
    "activation_mean": activation_mean,
    "activation_norm": activation_norm,
    "activation_variance": activation_variance,
    "bn_scale": bn_scale,
    "fisher": fisher,
    "flap": flap,
    "fpgm": fpgm,
    "hap": hap,
    "l1": l1,
    "l2": l2,
    "lamp": lamp,
    "mone": mone,
    "obs": obs,
    "pq": pq,
    "random": random,
    "reap": reap,
    "relative": relative,
    "taylor": taylor,
    "undecayed": undecayed,
    "wanda": wanda,
}

__all__ = [
    "CRITERIA",
    "ConsumerStatistics",
    "Criterion",
    "UnitStatistics",
    "UnitWeights",
    "needs",
    "needs_of",
    "order_positions",
]
