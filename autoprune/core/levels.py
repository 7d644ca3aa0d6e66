"""From name patterns to levels: which units are searched, and which kept counts each may have."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from autoprune.core.space import SearchSpace
from autoprune.core.unit import Kind, Unit
from autoprune.errors import SpaceError

GRIDS = {
    # removed shares in steps of one per cent, as in RD_PRUNE (Xu et al. 2023, https://arxiv.org/abs/2308.10438)
    "percent": tuple((100 - removed) / 100 for removed in range(101)),
    # sparsities 1 - 0.6 d^i from 0.4 to 0.99, as in SPDY (Frantar and Alistarh 2022, https://arxiv.org/abs/2201.13096)
    "spdy": (1.0, *(0.6 * (0.01 / 0.6) ** (step / 40) for step in range(41))),
}
# the least share of every weight, against layer collapse: the minimum threshold of Global MP (Gupta et al. 2022,
# https://arxiv.org/abs/2209.14624)
FLOOR = 0.0005


@dataclass(frozen=True)
class LevelRule:
    """The kept counts that units matching a name pattern may take.

    A level's count is its share of the width, rounded up to a multiple of `round_to`, and is dropped if it falls below
    `min_keep` or below what the unit must keep.

    Attributes:
        match: a shell-style pattern (* ? [abc]) for names of units.
        keep: shares of the width, with or without 1. Empty: the unit stays dense and is not searched. A share of 0
            applies to units that can be removed as a whole, such as branches, and is dropped for others.
        kind: the kind of unit the rule applies to; None for every kind that removes positions, never for single
            weights.
        round_to: kept counts are multiples of this.
        min_keep: the least kept count, or below 1 the least share of the width; None for one position.
        source: where the rule is written, for messages.
        group: for the kind pattern, the number of consecutive inputs that the shares refer to.
        floor: for the kind weights, the least share of every weight's entries that stays, and at least one entry for
            each of its outputs; smaller counts are raised to it. With a floor of 0 and no `min_keep` a weight may be
            emptied.

    Raises:
        SpaceError: an attribute is out of its range.
    """

    match: str
    keep: tuple[float, ...] = ()
    kind: Kind | None = None
    round_to: int = 1
    min_keep: float | None = None
    source: str = field(default="", compare=False, repr=False)
    group: int = 4
    floor: float = FLOOR

    def __post_init__(self) -> None:
        if self.group < 2:
            raise SpaceError(f"pattern {self.match!r}: expected a group of at least 2 inputs, got {self.group}")
        place = f"{self.source}: " if self.source else ""
        shares = self.keep if isinstance(self.keep, list | tuple) else [None]
        if not isinstance(self.match, str) or not all(isinstance(share, int | float) for share in shares):
            raise SpaceError(
                f"{place}expected a pattern of unit names and a tuple of shares such as LevelRule('*', (0.75, 0.5)), "
                f"got match {self.match!r} and keep {self.keep!r}"
            )
        if not all(0 <= share <= 1 for share in self.keep) or self.round_to < 1 or not _is_amount(self.min_keep):
            raise SpaceError(
                f"{place}pattern {self.match!r}: expected shares from 0 to 1, round_to of at least 1, and min_keep as "
                f"a count of at least 1 or a share above 0, got keep {list(self.keep)}, round_to {self.round_to}, "
                f"min_keep {self.min_keep}"
            )
        if not 0 <= self.floor < 1:
            raise SpaceError(
                f"{place}pattern {self.match!r}: expected a floor from 0 to below 1, the share of its entries that "
                f"every weight keeps, got {self.floor}"
            )

    def covers(self, unit: Unit) -> bool:
        """Whether the rule applies to a unit, by name and kind."""
        return fnmatchcase(unit.name, self.match) and self.admits(unit)

    def admits(self, unit: Unit) -> bool:
        """Whether the rule applies to units of this kind."""
        return not unit.is_sparse if self.kind is None else self.kind == unit.kind

    def levels(self, width: int, least: int = 1, multiple: int = 1, outputs: int = 1) -> tuple[int, ...]:
        """Kept counts, strictly decreasing from the width, rounded up so that a level keeps at least its share.

        Args:
            width: the unit's dense count.
            least: the least count the unit must keep; a level of 0 requires 0.
            multiple: kept counts are multiples of this, besides `round_to`.
            outputs: the number of outputs of the weight, for a weight unit.
        """
        step = math.lcm(self.round_to, multiple)
        # 1e-9: a share such as 0.7 of 10 must give 7, where ceil would turn 7.000000000000001 into 8
        counts = {step * math.ceil(share * width / step - 1e-9) for share in self.keep}
        if self.kind == "weights":
            lowest = step * math.ceil(self.least_entries(width, outputs) / step)
            counts = {max(count, lowest) for count in counts}
        else:
            lowest = max(1, least, self._least_kept(width))
        allowed = {c for c in counts if lowest <= c < width or c == 0 == least}
        return (width, *sorted(allowed, reverse=True))

    def least_entries(self, entries: int, outputs: int) -> int:
        """The least number of entries that a weight with `outputs` outputs keeps; 0 if it may be emptied."""
        floor = max(math.ceil(self.floor * entries - 1e-9), outputs) if self.floor else 0
        return min(entries, max(floor, self._least_kept(entries)))

    def _least_kept(self, width: int) -> int:
        """`min_keep` as a count; 0 if it is None."""
        least = self.min_keep or 0
        return math.ceil(least * width - 1e-9) if least < 1 else int(least)


def _is_amount(value: float | None) -> bool:
    """Whether a `min_keep` is None, a share between 0 and 1, or a whole number of at least 1."""
    return value is None or 0 < value < 1 or (value >= 1 and float(value).is_integer())


def build_space(units: Sequence[Unit], rules: Sequence[LevelRule]) -> SearchSpace:
    """The space of all units that a rule gives more than one level; the first matching rule counts.

    Raises:
        SpaceError: a rule matches no unit, or no unit has more than one level.
    """
    for rule in rules:
        if not any(rule.covers(unit) for unit in units):
            raise SpaceError(_no_match(rule, units))
    searched: dict[str, tuple[int, ...]] = {}
    for unit in units:
        first = _first(unit, rules)
        levels = first.levels(unit.width, unit.least, unit.multiple, unit.outputs) if first else (unit.width,)
        if len(levels) > 1:
            searched[unit.name] = levels
    if not searched:
        raise SpaceError(
            f"expected a rule that gives at least one of {len(units)} units more than its dense level, got none. "
            "Lower min_keep, or floor where single weights are searched, or add smaller shares to keep."
        )
    return SearchSpace(tuple(searched), tuple(searched.values()))


def floors(units: Sequence[Unit], rules: Sequence[LevelRule]) -> dict[str, int]:
    """The least count of entries of every weight unit that a rule applies to, by name."""
    ruled = {unit: _first(unit, rules) for unit in units if unit.kind == "weights"}
    return {unit.name: rule.least_entries(unit.width, unit.outputs) for unit, rule in ruled.items() if rule}


def _first(unit: Unit, rules: Sequence[LevelRule]) -> LevelRule | None:
    """The first rule that covers a unit."""
    return next((rule for rule in rules if rule.covers(unit)), None)


def _no_match(rule: LevelRule, units: Sequence[Unit]) -> str:
    names = [unit.name for unit in units if rule.admits(unit)]
    close = difflib.get_close_matches(rule.match, names, n=3, cutoff=0.3) or names[:3]
    kind = f" of kind {rule.kind!r}" if rule.kind else ""
    hint = f"; units{kind} here are for example {close}" if close else f"; there is no unit{kind} at all"
    place = f"{rule.source}: " if rule.source else ""
    return f"{place}pattern {rule.match!r} matches no unit{kind}{hint}. `autoprune inspect` lists them all."
