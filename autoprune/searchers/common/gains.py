"""What an answer is worth, or would be: by how much it lets a front grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from autoprune.core.front import hypervolume, nondominated
from autoprune.core.space import Levels

RECENT = 100  # gains that a new one is compared with
BEYOND = 0.1  # of the range, that the reference point lies beyond the worst values

Losses = Sequence[float]  # (m,)


class Gains:
    """Takes answers one by one, and keeps the front of their (m,) losses by levels.

    A gain is the hypervolume a network adds to the front before it. The reference point lies beyond the worst values of
    both together. A reward is the share of the last `RECENT` gains that a gain is above, equal ones counted half, and 0
    for none. We take the rank and not the gain over the largest so far: gains shrink by orders of magnitude while a
    front closes, so that by the maximum all that is done later would be worth nothing, and nothing could be told apart;
    and it does not depend on the units of the objectives.
    """

    def __init__(self) -> None:
        self.front: dict[Levels, tuple[float, ...]] = {}
        self._recent: deque[float] = deque(maxlen=RECENT)

    def add(self, levels: Levels, losses: Sequence[float] | None) -> float:
        """The reward from 0 to 1 for a network and its losses; None for one that failed, which is worth nothing."""
        gain = 0.0 if losses is None else self._grown(levels, tuple(losses))
        recent = np.array(self._recent)
        self._recent.append(gain)
        if gain <= 0:
            return 0.0
        return float(((recent < gain) + (recent == gain) / 2).mean()) if len(recent) else 1.0

    def _grown(self, levels: Levels, losses: tuple[float, ...]) -> float:
        """The gain of a network, which joins the front if it belongs to it."""
        rows = {**self.front, levels: losses}
        values = np.array(list(rows.values()))
        best = nondominated(values)
        if not best[-1]:
            return 0.0
        reference = (values.max(axis=0) + BEYOND * np.ptp(values, axis=0)).tolist()
        self.front = {row: rows[row] for row, keep in zip(rows, best, strict=True) if keep}
        return hypervolume(values[best], reference) - hypervolume(values[:-1], reference)


def largest_gain(losses: Sequence[Losses], known: Sequence[Losses]) -> int | None:
    """Which of n losses adds the most hypervolume to the known ones; None if none adds any.

    Each loss counts by its logarithm if none is below 0, and 0 as half of the least above it. The reference point lies
    beyond the worst values of all.
    """
    if not losses:
        return None
    scaled = _scaled(np.array([*losses, *known]))
    reference = [1 + BEYOND] * scaled.shape[1]
    front = scaled[len(losses) :]
    front = front[nondominated(front)]
    covered = hypervolume(front, reference)
    leading = np.flatnonzero(nondominated(scaled)[: len(losses)])
    gains = [hypervolume(np.concatenate([front, scaled[[index]]]), reference) - covered for index in leading]
    return int(leading[int(np.argmax(gains))]) if max(gains, default=0.0) > 0 else None


def _scaled(losses: np.ndarray) -> np.ndarray:
    """(n, m) losses from 0 to 1."""
    least = np.min(losses, axis=0, where=losses > 0, initial=np.inf) / 2
    logarithmic = (losses >= 0).all(axis=0) & np.isfinite(least)
    scaled = np.where(logarithmic, np.log(np.where(logarithmic, np.maximum(losses, least), 1.0)), losses)
    span = np.ptp(scaled, axis=0)
    return np.asarray((scaled - scaled.min(axis=0)) / np.where(span > 0, span, 1.0))
