"""Pareto fronts: dominance, hypervolume, and how to choose a member."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import moocore
import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective, losses
from autoprune.core.pick import Choice
from autoprune.core.space import Levels
from autoprune.errors import InfeasibleBudget

SPARED = 1e6  # more than any contribution to a scaled hypervolume


def nondominated(losses: np.ndarray) -> np.ndarray:
    """(n,) True for rows of (n, m) finite losses that no other row dominates; of equal rows only the first is True."""
    losses = np.asarray(losses, dtype=float)
    if len(losses) == 0:
        return np.zeros(0, dtype=bool)
    if not np.isfinite(losses).all():
        raise ValueError("expected finite losses; failed evaluations must be left out before")
    return np.asarray(moocore.is_nondominated(losses), dtype=bool)


def hypervolume(losses: np.ndarray, reference: Sequence[float]) -> float:
    """The volume that (n, m) losses dominate within the reference point; points beyond it add 0; 0 without points."""
    losses = np.asarray(losses, dtype=float).reshape(-1, len(reference))
    if len(losses) == 0:
        return 0.0
    if not np.isfinite(losses).all():
        raise ValueError("expected finite losses; failed evaluations must be left out before")
    return float(moocore.hypervolume(losses, ref=np.asarray(reference, dtype=float)))


def relative(losses: np.ndarray) -> np.ndarray:
    """(n, m) losses, scaled to [0, 1] after taking logarithms where no loss of an objective is below 0.

    Half of the least positive loss takes the place of 0.
    """
    least = np.min(losses, axis=0, where=losses > 0, initial=np.inf) / 2
    logarithmic = (losses >= 0).all(axis=0) & np.isfinite(least)
    scaled = np.where(logarithmic, np.log(np.where(logarithmic, np.maximum(losses, least), 1.0)), losses)
    return _to_unit(scaled)


def _to_unit(losses: np.ndarray) -> np.ndarray:
    """(n, m) losses, scaled to [0, 1]; 0 where all are equal."""
    spread = np.ptp(losses, axis=0)
    return np.asarray((losses - losses.min(axis=0)) / np.where(spread > 0, spread, 1.0))


@dataclass(frozen=True)
class Front:
    """Non-dominated evaluations at full fidelity, sorted by the last objective's loss and then by levels.

    Iterable, indexable, and with a length.

    Attributes:
        members: the evaluations.
        objectives: the m objectives that decide dominance.
        dense: the dense network's costs by name, so that "macs<=0.5" is read as a share.
    """

    members: tuple[Evaluation, ...]
    objectives: tuple[Objective, ...]
    dense: Mapping[str, float]

    @staticmethod
    def of(evaluations: Sequence[Evaluation], objectives: Sequence[Objective], dense: Mapping[str, float]) -> Front:
        """The front of all ok evaluations at full fidelity, whatever order they are given in."""
        usable = [e for e in evaluations if e.ok and e.candidate.fidelity == 1.0]
        objectives = tuple(objectives)
        rows = [([o.loss(e.values[o.name]) for o in objectives], e) for e in usable]
        rows.sort(key=lambda row: (row[0][::-1], row[1].candidate.levels))
        losses = np.array([row[0] for row in rows]).reshape(len(rows), len(objectives))
        members = tuple(row[1] for row, keep in zip(rows, nondominated(losses), strict=True) if keep)
        return Front(members, objectives, dict(dense))

    def __iter__(self) -> Iterator[Evaluation]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> Evaluation:
        return self.members[index]

    def losses(self) -> np.ndarray:
        """(n, m) losses of the n members, lower is better."""
        return losses(self.members, self.objectives)

    def thinned(self, limit: int, spared: Collection[Levels] = (), *, by_ratio: bool = False) -> Front:
        """At most `limit` members: drops the least hypervolume contributor repeatedly; each objective's best stays.

        Members whose levels are `spared` are dropped after all others. With `by_ratio`, the losses of objectives other
        than costs are compared as in `relative`.
        """
        members = list(self.members)
        losses = self.losses()
        ratios = np.array([by_ratio and o.name not in self.dense for o in self.objectives])
        while len(members) > max(limit, len(self.objectives)):
            scaled = np.where(ratios, relative(losses), _to_unit(losses))
            contribution = moocore.hv_contributions(scaled, ref=np.full(scaled.shape[1], 1.1))
            contribution[[member.candidate.levels in spared for member in members]] += SPARED
            contribution[scaled.argmin(axis=0)] = np.inf
            drop = int(contribution.argmin())
            members.pop(drop)
            losses = np.delete(losses, drop, axis=0)
        return Front(tuple(members), self.objectives, self.dense)

    def pick(self, text: str) -> Evaluation:
        """The member that a text names; see `Choice.pick`.

        Args:
            text: bounds such as "macs<=0.5", a row number counted from 1 in the order of the members ("3" or "#3"), or
                the candidate's levels ("0-2-1").

        Returns:
            The evaluation of that member.

        Raises:
            ConfigError: the text has none of these forms, or names a row, candidate or value that does not exist.
            InfeasibleBudget: no member satisfies all bounds; the message names the nearest one.
        """
        names = ["-".join(map(str, member.candidate.levels)) for member in self.members]
        return self.members[Choice(self.members, self.objectives, self.dense, names).pick(text).index]

    def knee(self) -> Evaluation:
        """The member farthest below the chord between the ends of the front, each objective scaled to [0, 1].

        With more than two objectives: the member nearest to the ideal point.

        Raises:
            InfeasibleBudget: the front is empty.
        """
        if not self.members:
            raise InfeasibleBudget("the front is empty: no evaluation succeeded")
        losses = self.losses()
        scaled = _to_unit(losses)
        # for two objectives the ends are (0, 1) and (1, 0): distance from their chord grows with 1 - x - y
        score = scaled.sum(axis=1) if scaled.shape[1] == 2 else np.linalg.norm(scaled, axis=1)
        return self.members[int(score.argmin())]

    def hypervolume(self, reference: Sequence[float]) -> float:
        """The volume of loss space (see Objective.loss) that the front dominates within the reference point."""
        return hypervolume(self.losses(), reference)
