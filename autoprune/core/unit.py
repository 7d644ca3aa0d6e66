"""What can be decided about a network: units, and where each of their positions lies in the network's tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Role = Literal["out", "in", "along"]

SPARSE_KINDS = ("weights", "pattern")


@dataclass(frozen=True)
class Span:
    """How the positions of a unit map to indices along one dimension of a tensor.

    Position i covers the `inner` indices from `offset + i * inner`, once for every combination of the outer
    repetitions `repeats`, each a (count, stride). A flattened (c, h, w) has inner = h * w for c and
    repeats = ((c, h * w),) for h.
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
    """One dimension of one parameter or buffer that a unit touches, and how.

    `role` is "out" where the tensor produces the positions, "in" where it contracts (consumes) them, and "along"
    where it only runs beside them (a normalisation's scale, a depthwise filter).
    """

    tensor: str
    dim: int
    role: Role
    span: Span = Span()


@dataclass(frozen=True)
class Unit:
    """One thing whose amount is decided: positions 0..width-1 that stay or go together everywhere they appear.

    `kind` is channels, neurons, heads, head_dim, branches or experts. Two more are there only where a search asks, and
    put zeros into one weight: weights, whose positions are its entries, and pattern, whose positions are those of every
    group of inputs in a row (core.sparse). A `normalised` unit has a normalisation or another reduction over its
    positions: removing one is not the same as setting it to zero. Counts that may stay are multiples of `multiple`, at
    least `least` (0 for a branch, whose one position is all of the modules in it), and the width itself.
    """

    name: str
    kind: str
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
        """The smallest count that may stay and is not below the given one."""
        return min(self.width, self.multiple * math.ceil(max(count, self.least) / self.multiple))

    @property
    def is_branch(self) -> bool:
        """Whether its modules stay or go as a whole: none of its tensors is ever sliced for it."""
        return self.kind == "branches"

    @property
    def is_sparse(self) -> bool:
        """Whether its weight gets zeros and keeps its shape: nothing is ever sliced for it."""
        return self.kind in SPARSE_KINDS

    @property
    def outputs(self) -> int:
        """How many outputs the weight of a weight unit has; 1 where the unit does not say."""
        return self.slots[0].span.inner if self.is_sparse and self.slots else 1

    def with_role(self, role: Role) -> tuple[Slot, ...]:
        """The slots of one role, in the order the model lists its tensors."""
        return tuple(slot for slot in self.slots if slot.role == role)

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose tensors the unit touches, each once, in the order the model lists its tensors."""
        return tuple(dict.fromkeys(slot.tensor.rpartition(".")[0] for slot in self.slots))

    def to_json(self) -> dict[str, Any]:
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
