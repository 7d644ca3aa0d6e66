"""What a recovery has measured, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch import nn


class Judged(NamedTuple):
    """The measurement of a network on the selection set.

    Attributes:
        losses: what networks are compared by: the first one, then the next one where the first is equal; lower is
            better.
        values: the measurements by name.
    """

    losses: tuple[float, ...]
    values: Mapping[str, float]


Judge = Callable[[nn.Module], Judged]


@dataclass(frozen=True)
class Point:
    """A measurement during a recovery.

    Attributes:
        step: the number of steps before it.
        loss: the mean training loss of the steps since the measurement before; None at the start.
        losses: see `Judged`.
        values: see `Judged`.
    """

    step: int
    loss: float | None
    losses: tuple[float, ...]
    values: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Point:
        return Point(data["step"], data["loss"], tuple(data["losses"]), dict(data["values"]))


@dataclass(frozen=True)
class Outcome:
    """The result of a recovery.

    Attributes:
        network: the best network on the selection set, in eval mode; the last one if nothing was measured.
        best: the measurement of it; None if nothing was measured.
        history: all measurements; the first one is that of the network before training.
        steps: the number of steps taken.
        stopped: why the training ended before its last step; empty if it did not.
    """

    network: nn.Module
    best: Point | None
    history: Sequence[Point]
    steps: int
    stopped: str = ""

    @property
    def remark(self) -> str:
        """A sentence on what the network is: recovered, or the one from before training, and why training ended."""
        if self.best is None:
            return self.stopped
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.best.values.items())
        if self.best.step:
            said = f"the best network on the selection set is that of step {self.best.step:,} ({shown})."
        else:
            said = (
                f"no network in training was better on the selection set than the one it started from ({shown}), which "
                "is kept. Another loss or learning rate may help."
            )
        return " ".join(filter(None, (self.stopped, said)))
