"""Screening: every network is scored on a small part of the selection set, and the front of that on all of it.

Our own, for fronts. Halving (search.halving, search.asha) lets a fixed share of the networks through, which is too few
where a whole front is wanted and too many where it is not; here those go on that no other network dominates on the
small part. Since most of what leads when it is measured is dominated soon after, a network goes on only when it still
leads after a while.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.search.proposals import Levels, at_least
from autoprune.search.rungs import Rungs, Source


class ScreeningSearch:
    """Networks of `source`, scored on a `share` of the images, and on all once they lead `patience` networks later.

    The first that is proposed is scored on all at once, so that a search that is cut short has something to show.
    `source_options` are those of the source. Once that has ended, all that lead go on.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        source: str = "auto",
        source_options: Mapping[str, Any] | None = None,
        share: float = 1 / 16,
        patience: int = 60,
    ) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"expected share to be above 0 and below 1, got {share!r}")
        self.fidelities = (share, 1.0)
        self._rungs = Rungs(problem, self.fidelities)
        self._source = Source(problem, seed, source, source_options)
        self._patience = at_least("patience", patience, 0)
        self._leading: dict[Levels, tuple[float, ...]] = {}  # the front of what was screened, with its losses
        self._since: dict[Levels, int] = {}  # how many networks had been screened when each was

    def ask(self, n: int) -> list[Candidate]:
        while self._rungs.queued < n and (self._promote() or self._draw(n) or self._finish()):
            pass
        return self._rungs.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for rung, evaluation in self._rungs.record(evaluations):
            if rung == 0:
                self._since[evaluation.candidate.levels] = len(self._since)
                self._compare(evaluation.candidate.levels)
                self._source.tell(evaluation)

    def _compare(self, levels: Levels) -> None:
        """Counts a network among the leading ones unless one of them is as good; those that it dominates leave."""
        own = self._rungs.losses[0].get(levels)
        if own is None or any(_as_good(other, own) for other in self._leading.values()):
            return
        self._leading = {row: other for row, other in self._leading.items() if not _as_good(own, other)}
        self._leading[levels] = own

    def _promote(self) -> bool:
        """Queues those that lead and did long enough; whether there are any."""
        waited = len(self._since) - self._patience
        return self._rungs.add([levels for levels in self._leading if self._since[levels] < max(1, waited)], 1)

    def _draw(self, n: int) -> bool:
        return self._rungs.add(self._source.draw(n - self._rungs.queued), 0)

    def _finish(self) -> bool:
        """Queues all that lead, once nothing is waited for and nothing else is new."""
        return not (self._rungs.waiting or self._rungs.queued) and self._rungs.add(self._leading, 1)


def _as_good(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether losses are nowhere above others."""
    return all(a <= b for a, b in zip(one, other, strict=True))
