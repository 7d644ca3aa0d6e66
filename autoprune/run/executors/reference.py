"""The dense network's values in this process, which every worker's are compared with before it scores anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from autoprune.core.evaluation import Evaluation
from autoprune.errors import RunFailed
from autoprune.run.executors.computing import hardware

TOLERANCE = 0.01  # relative, and absolute for values below 1, between different hardware


@dataclass(frozen=True)
class Reference:
    """`score` scores the dense network here, `values` is what it said once; `warn` tells the user.

    On the CPU and the same hardware values must be the same to the last bit (`exact`), on other hardware nearly so,
    which is told. What differs from one time to the next here too, such as a time that is measured, is left out, which
    is told as well.
    """

    score: Callable[[], Evaluation]
    values: Mapping[str, float]
    exact: bool
    warn: Callable[[str], None]

    def check(self, worker: str, answer: Evaluation, its_hardware: str) -> None:
        """Raises RunFailed where a worker's values of the dense network are not those of this process."""
        if not answer.ok:
            raise RunFailed(f"{worker} cannot score the dense network, which others can: {answer.cause}")
        off = [name for name, value in self.values.items() if answer.values.get(name) != value]
        if not off:
            return
        again = self.score().values
        changing = [name for name in off if again.get(name) != self.values[name]]
        if changing:
            self.warn(f"the fitness gives another {', '.join(changing)} each time: a run cannot be repeated with it")
        off = [name for name in off if name not in changing]
        if not off:
            return
        said = ", ".join(f"{name} {self.values[name]!r} here and {answer.values.get(name)!r} there" for name in off)
        alike = self.exact and its_hardware == hardware()
        if alike or not all(_close(self.values[name], answer.values.get(name, math.nan)) for name in off):
            raise RunFailed(
                f"{worker} measures something else of the dense network than this process: {said}. Its fitness reads "
                "something that is not the same there, such as a file, a variable or the state of a module."
            )
        self.warn(f"values depend on the hardware, {hardware()} here and {its_hardware} on {worker}: {said}")


def _close(ours: float, theirs: float) -> bool:
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
