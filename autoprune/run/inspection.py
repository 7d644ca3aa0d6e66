"""Inspects a job without running it: what can be pruned in its model, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.core.process import ending_forks
from autoprune.core.unit import Unit
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.prune.structure.structure import Frozen, Unmet
from autoprune.run.forecast.forecast import Forecast
from autoprune.run.forecast.opening import forecast_of
from autoprune.run.loop.guard import guarded
from autoprune.run.session.job import Job, OnProgress, silent
from autoprune.run.session.session import Session

Shares = dict[str, float]


COUNTED = ("macs", "params")


@dataclass(frozen=True)
class FrozenGroup:
    """The parts that are frozen for one reason, by name, with their share of the dense MACs."""

    reason: str
    share: float
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """The parts of a job's model that can be pruned, and how far.

    Attributes:
        levels: the kept counts of the searched units.
        shares: the shares of the dense "macs" and "params" that removing a whole unit would save, by unit.
        kind_shares: the shares that removing all units of a kind would save, by kind.
        reach: the least and the largest value of every cost.
        frozen: the frozen parts with reasons, the largest share of the MACs first.
        forecast: the time and the memory that a run will take, by stage.
        unmet: parameters that no example call reads.
        notes: sentences about parts that were not analyzed (see Structure).
    """

    units: tuple[Unit, ...]
    levels: dict[str, tuple[int, ...]]
    space_size: int
    reach: dict[str, tuple[float, float]]
    shares: dict[str, Shares]
    kind_shares: dict[str, Shares]
    frozen: tuple[Frozen, ...]
    uncounted: tuple[str, ...]
    forecast: Forecast
    unmet: tuple[Unmet, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def frozen_share(self) -> float:
        """The share of the dense MACs in operators that no unit touches."""
        return sum(part.share for part in self.frozen)

    def of_kind(self, kind: str) -> list[Unit]:
        """The units of a kind, the largest share of the MACs first."""
        units = [unit for unit in self.units if unit.kind == kind]
        return sorted(units, key=lambda unit: -self.shares[unit.name]["macs"])

    def frozen_by_reason(self) -> list[FrozenGroup]:
        """The frozen parts, grouped by reason, the largest share of the MACs first."""
        groups: dict[str, list[Frozen]] = {}
        for part in self.frozen:
            groups.setdefault(part.reason, []).append(part)
        found = [
            FrozenGroup(reason, sum(part.share for part in parts), tuple(part.what for part in parts))
            for reason, parts in groups.items()
        ]
        return sorted(found, key=lambda group: -group.share)

    def to_json(self) -> dict[str, Any]:
        return {
            "units": [self._unit_json(unit) for unit in self.units],
            "kinds": {kind: _shares_json(shares) for kind, shares in self.kind_shares.items()},
            "levels": {unit: list(counts) for unit, counts in self.levels.items()},
            "space_size": self.space_size,
            "reach": {cost: list(ends) for cost, ends in self.reach.items()},
            "frozen_share_of_macs": self.frozen_share,
            "frozen": [{"what": row.what, "share_of_macs": row.share, "reason": row.reason} for row in self.frozen],
            "uncounted_operators": list(self.uncounted),
            "unmet": [{"parameter": row.name, "shape": row.shape, "share_of_params": row.share} for row in self.unmet],
            "notes": list(self.notes),
            "forecast": self.forecast.to_json(),
        }

    def _unit_json(self, unit: Unit) -> dict[str, Any]:
        return {**unit.to_json(), "modules": list(unit.modules), **_shares_json(self.shares[unit.name])}


def _shares_json(shares: Shares) -> Shares:
    return {f"share_of_{cost}": share for cost, share in shares.items()}


@ending_forks()
def inspect_job(job: Job, progress: OnProgress = silent) -> Inspection:
    """Finds the structure, the space and the reach of costs of a job, without running it."""
    with guarded(), torch_threads(job.threads):
        forecast, session = forecast_of(job, progress)
    structure = session.structure
    return Inspection(
        units=session.units,
        levels=dict(zip(session.space.units, session.space.levels, strict=True)),
        space_size=session.space.count,
        reach=session.problem.reach(),
        shares={unit.name: _shares(session, [unit]) for unit in session.units},
        kind_shares={
            kind: _shares(session, [unit for unit in session.units if unit.kind == kind])
            for kind in dict.fromkeys(unit.kind for unit in session.units)
        },
        frozen=tuple(sorted(structure.frozen, key=lambda part: -part.share)),
        uncounted=structure.uncounted,
        unmet=structure.unmet,
        notes=structure.notes,
        forecast=forecast,
    )


def _shares(session: Session, units: Sequence[Unit]) -> Shares:
    """The shares of the dense network's MACs and parameters that removing all the given units would save."""
    if units[0].is_sparse:
        counts = np.zeros((1, len(units)), dtype=np.int64)
        rest = session.problem.costs.evaluate([unit.name for unit in units], counts)
        left = {"macs": rest["effective_macs"][0].item(), "params": rest["nonzeros"][0].item()}
        return {cost: 1 - left[cost] / session.dense_costs[cost] for cost in COUNTED}
    return {cost: session.structure.joint_share([unit.name for unit in units], cost) for cost in COUNTED}
