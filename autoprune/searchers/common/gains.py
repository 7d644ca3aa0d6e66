"""The worth of an answer: how much it lets a front grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from autoprune.core.front import hypervolume, nondominated, relative
from autoprune.core.space import Levels

RECENT_GAINS = 100  # number of past gains that a new one is ranked among
BEYOND = 0.1  # distance of the reference point beyond the worst values, as a share of the range

LossVector = Sequence[float]  # (m,)


class Gains:
    """Tracks the front of the answers so far, and turns what each adds to it into a reward.

    A gain is the hypervolume that a network adds to the front before it; the reference point lies beyond the worst
    values of both together. A reward is the share of the last `RECENT_GAINS` gains that a gain exceeds, ties counted
    half, and 0 for no gain. We take the rank and not the gain over the largest so far: gains shrink by orders of
    magnitude while a front closes, so that relative to the maximum all later gains would look equal; and the rank does
    not depend on the objectives' units.
    """

    def __init__(self) -> None:
        self.front: dict[Levels, tuple[float, ...]] = {}
        self._recent: deque[float] = deque(maxlen=RECENT_GAINS)

    def add(self, levels: Levels, losses: Sequence[float] | None) -> float:
        """The reward, from 0 to 1, of a network with (m,) losses; losses of None mean that it failed, reward 0."""
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


def largest_gain(losses: Sequence[LossVector], known: Sequence[LossVector]) -> int | None:
    """The index of the one of n losses that adds the most hypervolume to the known ones; None if none adds any.

    Losses are compared as in `relative`. The reference point lies beyond the worst values of all.
    """
    if not losses:
        return None
    scaled = relative(np.array([*losses, *known]))
    reference = [1 + BEYOND] * scaled.shape[1]
    front = scaled[len(losses) :]
    front = front[nondominated(front)]
    covered = hypervolume(front, reference)
    leading = np.flatnonzero(nondominated(scaled)[: len(losses)])
    gains = [hypervolume(np.concatenate([front, scaled[[index]]]), reference) - covered for index in leading]
    return int(leading[int(np.argmax(gains))]) if max(gains, default=0.0) > 0 else None
