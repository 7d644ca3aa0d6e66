"""The dense network's values in this process. Every worker must reproduce them before it scores candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoprune.core.evaluation import Evaluation
from autoprune.errors import RunFailed
from autoprune.run.executors.computing import hardware

TOLERANCE = 0.01  # between different hardware; relative, and absolute for values below 1


@dataclass(frozen=True)
class Reference:
    """The values of the dense network to compare with.

    On the CPU and the same hardware values must be equal bit for bit (`exact`), on other hardware nearly equal, with a
    warning. Values that change between repetitions in this process, such as measured times, are not compared, with a
    warning as well.

    Attributes:
        score: scores the dense network in this process.
        values: its values from one call.
        warn: logs a warning.
        exact: whether values on the same hardware must be equal bit for bit.
    """

    score: Callable[[], Evaluation]
    values: Mapping[str, float]
    exact: bool
    warn: Callable[[str], None]

    def check(self, worker: str, answer: Evaluation, its_hardware: str) -> None:
        """Raises RunFailed if a worker's values of the dense network differ from those of this process."""
        if not answer.ok:
            raise RunFailed(f"{worker} cannot score the dense network, but others can: {answer.cause}")
        off = [name for name, value in self.values.items() if answer.values.get(name) != value]
        if not off:
            return
        again = self.score().values
        changing = [name for name in off if again.get(name) != self.values[name]]
        if changing:
            self.warn(f"the fitness gives a different {', '.join(changing)} each time: runs with it are not repeatable")
        off = [name for name in off if name not in changing]
        if not off:
            return
        said = ", ".join(f"{name} {self.values[name]!r} here and {answer.values.get(name)!r} there" for name in off)
        alike = self.exact and its_hardware == hardware()
        if alike or not all(_close(self.values[name], answer.values.get(name, math.nan)) for name in off):
            raise RunFailed(
                f"{worker} measures other values of the dense network than this process: {said}. The fitness depends "
                "on something that differs there, such as a file, a variable or the state of a module."
            )
        self.warn(f"values depend on the hardware, {hardware()} here and {its_hardware} on {worker}: {said}")


def _close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
