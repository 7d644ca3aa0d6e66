"""The search space: units, and the kept counts that each may take."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.errors import SpaceError


@dataclass(frozen=True, order=True)
class Candidate:
    """A network of the search: one level index for each unit, and the share of the selection set to score it on.

    The share is a prefix of one fixed order of the examples, the same for every candidate. Where networks are trained
    before they are scored, fidelities are shares of the training steps instead.

    Attributes:
        levels: (u,) level indices, 0 for dense.
        fidelity: the share, above 0 and at most 1.
        since: the share that was scored before; an evaluator scores only the remainder. Searchers leave it at 0.
    """

    levels: tuple[int, ...]
    fidelity: float = 1.0
    since: float = 0.0


@dataclass(frozen=True)
class SearchSpace:
    """Units by name and, for each, the kept counts to choose from.

    `levels[u]` is strictly decreasing and starts with the unit's full width, so that level 0 is dense, a larger level
    removes more, and no two level vectors keep the same counts. It ends with 0 only if the whole unit can be removed,
    as with a branch.
    """

    units: tuple[str, ...]
    levels: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.units:
            raise SpaceError("expected at least one unit to search over, got none. Widen the patterns of the space.")
        if len(set(self.units)) != len(self.units) or len(self.units) != len(self.levels):
            raise SpaceError(f"expected one list of levels per unit and no name twice, got units {list(self.units)}")
        for unit, counts in zip(self.units, self.levels, strict=True):
            if not counts or counts[0] < 1 or counts[-1] < 0 or any(a <= b for a, b in itertools.pairwise(counts)):
                raise SpaceError(
                    f"unit {unit!r}: expected kept counts that strictly decrease from its width, of 1 or more, "
                    f"and end at 0 or above, got {list(counts)}. Raise min_keep or drop the level."
                )

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(u,) number of levels of each unit; read-only."""
        return _read_only([len(counts) for counts in self.levels])

    @property
    def count(self) -> int:
        """The number of networks in the space."""
        return math.prod(len(counts) for counts in self.levels)

    @functools.cached_property
    def shares(self) -> tuple[np.ndarray, ...]:
        """For each unit the (l,) shares kept at its levels, descending from 1."""
        return tuple(np.array(counts) / counts[0] for counts in self.levels)

    @property
    def dense(self) -> Candidate:
        return Candidate((0,) * len(self.units))

    @property
    def smallest(self) -> Candidate:
        return Candidate(tuple(len(counts) - 1 for counts in self.levels))

    def kept(self, levels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Kept counts of level indices, (n, u) or (u,) like the input; SpaceError for an index out of range."""
        indices = np.asarray(levels, dtype=np.int64)
        if ((indices < 0) | (indices >= self.sizes)).any():
            raise SpaceError(f"expected level indices from 0 to {(self.sizes - 1).tolist()}, got {indices.tolist()}")
        counts, starts = self._counts
        return counts.take(starts + indices)

    @functools.cached_property
    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        """The kept counts of all units' levels, concatenated, and the (u,) offset of each unit."""
        ends = np.cumsum([len(counts) for counts in self.levels])
        return _read_only(list(itertools.chain(*self.levels))), _read_only(ends - self.sizes)

    def key(self, candidate: Candidate) -> tuple[int, ...]:
        """The kept counts of a candidate, which identify its network."""
        return tuple(counts[level] for counts, level in zip(self.levels, candidate.levels, strict=True))

    def counts(self, candidate: Candidate) -> dict[str, int]:
        """The kept count of every unit by name."""
        return dict(zip(self.units, self.key(candidate), strict=True))

    def check(self, candidate: Candidate) -> None:
        """Checks a candidate.

        Raises:
            SpaceError: a level index is out of range, or `fidelity` or `since` is.
        """
        levels = candidate.levels
        inside = (
            isinstance(levels, tuple)
            and len(levels) == len(self.units)
            and all(
                isinstance(level, int) and 0 <= level < len(counts)
                for level, counts in zip(levels, self.levels, strict=True)
            )
        )
        if not inside:
            raise SpaceError(
                f"expected {len(self.units)} level indices, each from 0 to {(self.sizes - 1).tolist()}, got "
                f"{levels}. Give them as a tuple of plain integers."
            )
        if not 0 < candidate.fidelity <= 1:
            raise SpaceError(f"expected a fidelity above 0 and at most 1, got {candidate.fidelity}")
        if not 0 <= candidate.since < candidate.fidelity:
            raise SpaceError(f"expected since from 0 to below the fidelity {candidate.fidelity}, got {candidate.since}")

    def to_json(self) -> dict[str, Any]:
        """The space as plain data for JSON."""
        return {"units": list(self.units), "levels": [list(counts) for counts in self.levels]}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> SearchSpace:
        """Makes a space from the result of `to_json`."""
        return SearchSpace(tuple(data["units"]), tuple(tuple(counts) for counts in data["levels"]))


def _read_only(values: Sequence[Any]) -> np.ndarray:
    array = np.array(values, dtype=np.int64)
    array.flags.writeable = False
    return array


Levels = tuple[int, ...]
