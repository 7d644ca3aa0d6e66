"""Prunable units, and where each of their positions lies in the network's tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

Role = Literal["out", "in", "along"]
Kind = Literal["channels", "neurons", "heads", "head_dim", "branches", "experts", "weights", "pattern"]

KINDS: tuple[Kind, ...] = get_args(Kind)
SPARSE_KINDS: tuple[Kind, ...] = ("weights", "pattern")

_BLOCK = re.compile(r"(.*\d)\.")  # the longest beginning of a name that ends with a number and is not all of it


@dataclass(frozen=True)
class Span:
    """A mapping from a unit's positions to indices along one dimension of a tensor.

    Position i covers the `inner` indices from `offset + i * inner`, once for every combination of the outer repetitions
    `repeats`, each a (count, stride). A flattened (c, h, w) has inner = h * w for c and repeats = ((c, h * w),) for h.
    """

    offset: int = 0
    inner: int = 1
    repeats: tuple[tuple[int, int], ...] = ()

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """(n, k) indices covered by each of the (n,) positions, k = inner times the product of the repetitions."""
        starts = np.array([self.offset])
        for count, stride in self.repeats:
            starts = (starts[:, None] + np.arange(count) * stride).ravel()
        block = (starts[:, None] + np.arange(self.inner)).ravel()
        return np.asarray(positions, dtype=np.int64)[:, None] * self.inner + block


@dataclass(frozen=True)
class Slot:
    """One dimension of a parameter or buffer that a unit touches.

    `role` is "out" if the tensor produces the positions, "in" if it contracts (consumes) them, and "along" if it only
    runs beside them (a normalisation's scale, a depthwise filter).
    """

    tensor: str
    dim: int
    role: Role
    span: Span = Span()


@dataclass(frozen=True)
class Unit:
    """A set of positions 0..width-1 whose kept count is decided; a position is removed from every tensor it appears in.

    Attributes:
        name: the unit's name, from the module that produces it.
        kind: one of KINDS. Those of SPARSE_KINDS exist only if a search asks for them, and set entries of one weight to
            zero: weights (its single entries) and pattern (entries of every group of consecutive inputs; see
            core.sparse). The others remove positions.
        width: the number of positions.
        slots: the tensor dimensions that hold the positions.
        normalised: whether a normalisation or another reduction runs over the positions, so that removing one differs
            from setting it to zero.
        least: the least kept count; 0 for a branch, whose one position is all of its modules.
        multiple: kept counts are multiples of this, or the width itself.
    """

    name: str
    kind: Kind
    width: int
    slots: tuple[Slot, ...]
    normalised: bool = False
    least: int = 1
    multiple: int = 1

    def __repr__(self) -> str:
        numbers = {"width": self.width, "least": self.least, "multiple": self.multiple}
        shown = [f"{name}={value}" for name, value in numbers.items() if name == "width" or value != 1]
        return f"Unit({self.name!r}, {self.kind}, {', '.join(shown)}, {len(self.slots)} slots)"

    def allowed(self, count: int) -> int:
        """The smallest allowed kept count of at least `count`."""
        return min(self.width, self.multiple * math.ceil(max(count, self.least) / self.multiple))

    @property
    def is_branch(self) -> bool:
        """Whether its modules are kept or removed as a whole; none of its tensors is sliced."""
        return self.kind == "branches"

    @property
    def is_sparse(self) -> bool:
        """Whether its weight keeps its shape and gets zeros; none of its tensors is sliced."""
        return self.kind in SPARSE_KINDS

    @property
    def outputs(self) -> int:
        """The number of outputs of a weight unit's weight; 1 if unknown."""
        return self.slots[0].span.inner if self.is_sparse and self.slots else 1

    def with_role(self, role: Role) -> tuple[Slot, ...]:
        """The slots of one role, in the order of the model's tensors."""
        return tuple(slot for slot in self.slots if slot.role == role)

    @property
    def modules(self) -> tuple[str, ...]:
        """The names of the modules whose tensors the unit touches, each once, in the order of the model's tensors."""
        return tuple(dict.fromkeys(slot.tensor.rpartition(".")[0] for slot in self.slots))

    def to_json(self) -> dict[str, Any]:
        """The unit as plain data for JSON."""
        slots = [
            {"tensor": s.tensor, "dim": s.dim, "role": s.role, "offset": s.span.offset, "inner": s.span.inner}
            | ({"repeats": [list(pair) for pair in s.span.repeats]} if s.span.repeats else {})
            for s in self.slots
        ]
        return {
            "name": self.name,
            "kind": self.kind,
            "width": self.width,
            "normalised": self.normalised,
            "least": self.least,
            "multiple": self.multiple,
            "slots": slots,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Unit:
        """Makes a unit from the result of `to_json`."""
        slots = tuple(
            Slot(
                s["tensor"],
                s["dim"],
                s["role"],
                Span(s["offset"], s["inner"], tuple((c, t) for c, t in s.get("repeats", ()))),
            )
            for s in data["slots"]
        )
        return Unit(
            data["name"], data["kind"], data["width"], slots, data["normalised"], data["least"], data["multiple"]
        )


def block_of(unit: str) -> str:
    """The name of the module that a unit belongs to with the others of its block; that of its own module in none.

    >>> block_of("model.layers.0.self_attn/branch")
    'model.layers.0'
    """
    path = unit.partition("/")[0]
    found = _BLOCK.match(path)
    return found[1] if found else path


def blocks_of(units: Iterable[str]) -> dict[str, list[str]]:
    """The units of each block, from the first block to the last, by the numbers in their names."""
    found: dict[str, list[str]] = {}
    for unit in units:
        found.setdefault(block_of(unit), []).append(unit)
    return dict(sorted(found.items(), key=lambda pair: _by_number(pair[0])))


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", name)]
