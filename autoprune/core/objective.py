"""Objectives with a direction, and bounds on measured values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.errors import ConfigError

Direction = Literal["min", "max"]

KNOWN_DIRECTIONS: Mapping[str, Direction] = {
    **dict.fromkeys(("accuracy", "cosine", "agreement", "worst_class", "corrupted_accuracy"), "max"),
    **dict.fromkeys(
        (
            *("kl", "mse", "loss", "perplexity", "distance", "layer", "group_gap"),
            *("macs", "params", "nonzeros", "effective_macs"),
        ),
        "min",
    ),
}

_NAME = r"[A-Za-z_]\w*"
_BOUND = re.compile(rf"^\s*({_NAME})\s*(<=|>=|=)\s*([0-9.eE+_-]+)\s*$")


def is_name(text: object) -> bool:
    """Whether a value has the form of a name that bounds such as "macs<=0.5" can be on."""
    return isinstance(text, str) and re.fullmatch(_NAME, text) is not None


NAMED = "letters, digits and underscores, the first no digit, so that bounds such as 'macs<=0.5' can be on it"


@dataclass(frozen=True)
class Objective:
    """A measured value and its direction; the only place where a sign is flipped.

    Attributes:
        name: the value's name in `Evaluation.values`.
        direction: "min" if lower is better, "max" if higher is.
        unit: the unit of measure, for labels.
        bound: the worst admissible value, an upper limit for "min" and a lower one for "max". On a cost, a value of at
            most 1 is a share of the dense network's.
    """

    name: str
    direction: Direction
    unit: str = ""
    bound: float | None = None

    def loss(self, value: float) -> float:
        """The value with its sign such that lower is better."""
        return value if self.direction == "min" else -value

    @property
    def limit(self) -> Bound | None:
        """`bound` as a Bound in the sense of the direction; None without one."""
        return None if self.bound is None else Bound(self.name, "<=" if self.direction == "min" else ">=", self.bound)


@dataclass(frozen=True)
class Bound:
    """A limit on one measured value, e.g. "macs<=0.5" or "accuracy>=0.9"."""

    name: str
    sense: Literal["<=", ">="]
    value: float

    @staticmethod
    def parse(text: str) -> Bound:
        """Parses a text such as "macs<=0.5"; "=" means a budget, that is, "<=".

        Raises:
            ConfigError: the text is no bound, or its value is not finite.
        """
        match = _BOUND.match(text)
        try:
            if match is None:
                raise ValueError
            name, sense, value = match[1], match[2], float(match[3])
            if not math.isfinite(value):
                raise ValueError
        except ValueError:
            raise ConfigError(
                "expected a bound such as 'macs<=0.5', 'params<=100000' or 'accuracy>=0.9', with a finite number, "
                f"got {text!r}"
            ) from None
        return Bound(name, ">=" if sense == ">=" else "<=", value)

    def absolute(self, dense: Mapping[str, float]) -> Bound:
        """The bound in the cost's own unit, if it is a share (above 0, at most 1) of a dense cost; else unchanged."""
        if self.name in dense and 0 < self.value <= 1:
            return Bound(self.name, self.sense, self.value * dense[self.name])
        return self

    def admits(self, value: float) -> bool:
        """Whether a value is within the bound; NaN never is."""
        return value <= self.value if self.sense == "<=" else value >= self.value

    @property
    def exact(self) -> str:
        """The text that `parse` reads as this very bound."""
        return f"{self.name}{self.sense}{self.value!r}"

    def __str__(self) -> str:
        return f"{self.name}{self.sense}{self.value:g}"


def losses(evaluations: Sequence[Evaluation], objectives: Sequence[Objective]) -> np.ndarray:
    """(n, m) objective values of n evaluations, lower is better."""
    rows = [[o.loss(e.values[o.name]) for o in objectives] for e in evaluations]
    return np.array(rows, dtype=float).reshape(len(evaluations), len(objectives))
