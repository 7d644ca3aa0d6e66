"""Screening: every network is scored on a small part of the selection set, and on all of it what promises most.

Our own, for fronts. Halving (search.halving, search.asha) lets a fixed share of the networks through, of which few
belong to the front. Here half of the images are spent on a small score of each network, the other half on full ones,
one after the other, each for the network that promises the largest gain of hypervolume. What is promised follows from
the small scores and from what networks measured on everything turned out to be (search.correction): one that was lucky
on few images lowers the hopes for all that are like it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autoprune.core.checks import at_least
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers.common.gains import Losses, largest_gain
from autoprune.searchers.partial.correction import Correction
from autoprune.searchers.partial.rungs import Rungs, Source


class ScreeningSearch:
    """Networks of `source`, scored on a `share` of the images, and on all where that promises most.

    `full` is the share of all images that full scores take, but for the first network, which is scored on all at once,
    so that a search that is cut short has something to show. A network can be chosen once `patience` others have been
    screened after it. `source_options` are those of the source. Once that has ended, all that promise a gain go on.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        source: str = "auto",
        source_options: Mapping[str, Any] | None = None,
        share: float = 1 / 8,
        full: float = 1 / 2,
        patience: int = 10,
    ) -> None:
        for name, value in (("share", share), ("full", full)):
            if not 0 < value < 1:
                raise ConfigError(f"expected {name} to be above 0 and below 1, got {value!r}")
        self.fidelities = (share, 1.0)
        self._rungs = Rungs(problem, self.fidelities)
        self._source = Source(problem, seed, source, source_options)
        self._correction = Correction(problem.space)
        self._full_for_each = share / (1 - share) * full / (1 - full)  # network that was screened
        self._patience = at_least("patience", patience, 0)
        self._promised: dict[Levels, Losses] = {}  # of all that were screened
        self._sent: set[Levels] = set()  # to be measured on everything
        self._front: dict[Levels, Losses] = {}  # of those that were sent: what they promised, and then what they have

    def ask(self, n: int) -> list[Candidate]:
        while self._rungs.queued < n and (self._promote() or self._draw(n) or self._finish()):
            pass
        return self._rungs.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        small, full = self._rungs.losses
        for rung, evaluation in self._rungs.record(evaluations):
            levels = evaluation.candidate.levels
            if rung == 0:
                self._source.tell(self._promising(evaluation) if levels in small else evaluation)
            elif levels not in full:
                self._front.pop(levels)
            else:
                self._front[levels] = full[levels]
                self._correction.add(levels, small[levels], full[levels])
                self._promised = dict(zip(small, self._estimates(list(small)), strict=True))

    def _promising(self, evaluation: Evaluation) -> Evaluation:
        """An answer with what it promises in place of what was measured."""
        levels, objectives = evaluation.candidate.levels, self._rungs.problem.objectives
        self._promised[levels] = self._estimates([levels])[0]
        values = {o.name: o.loss(x) for o, x in zip(objectives, self._promised[levels], strict=True)}  # its own inverse
        return replace(evaluation, values={**evaluation.values, **values})

    def _estimates(self, rows: Sequence[Levels]) -> list[Losses]:
        """(n, m) losses on everything that networks which were screened are expected to have."""
        small = self._rungs.losses[0]
        losses: list[Losses] = self._correction.estimate(rows, np.array([small[row] for row in rows])).tolist()
        return losses

    def _promote(self) -> bool:
        """Queues the most promising network if the turn has come for one; whether it did."""
        screened = len(self._promised)
        if len(self._sent) > self._full_for_each * screened:
            return False
        return self._send(list(self._promised)[: max(1, screened - self._patience)])

    def _finish(self) -> bool:
        """The same at any time, of all networks, once nothing is waited for and nothing else is new."""
        return not (self._rungs.waiting or self._rungs.queued) and self._send(list(self._promised))

    def _send(self, rows: Sequence[Levels]) -> bool:
        """Queues the one of these networks that promises the largest gain; False if none promises any."""
        new = [levels for levels in rows if levels not in self._sent]
        chosen = largest_gain([self._promised[levels] for levels in new], list(self._front.values()))
        if chosen is None:
            return False
        self._sent.add(new[chosen])
        self._front[new[chosen]] = self._promised[new[chosen]]
        return self._rungs.add([new[chosen]], 1)

    def _draw(self, n: int) -> bool:
        return self._rungs.add(self._source.draw(n - self._rungs.queued), 0)
