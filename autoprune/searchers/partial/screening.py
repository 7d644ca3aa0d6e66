"""Screening: every network is scored on a small part of the selection set, and the most promising ones on all of it.

Our own method, for fronts. Halving (searchers.partial.halving, searchers.partial.asha) promotes a fixed share of the
networks, of which few belong to the front. Here half of the examples are spent on a small score of each network, the
other half on full scores, one after the other, each for the network with the largest predicted hypervolume gain. The
prediction follows from the small scores and from the networks measured on everything (searchers.partial.correction):
one that was lucky on few examples lowers the predictions for similar networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers.common.gains import LossVector, largest_gain
from autoprune.searchers.partial.correction import Correction
from autoprune.searchers.partial.rungs import ProposalSource, Rungs


class ScreeningSearch:
    """Networks of `source`, scored on a `share` of the examples, and the most promising ones on all of them.

    The first network is scored on everything at once, so that a search that is cut short has a result. Once the source
    has ended, all networks with a predicted gain are promoted.

    Args:
        problem: the problem to search.
        seed: seed of the source.
        source: the name of the searcher that proposes networks.
        source_options: its options.
        share: the share of the selection set of a small score.
        full: the share of all scored examples that full scores take.
        patience: a network can be promoted once this many others have been screened after it.

    Raises:
        ConfigError: an option is out of range.
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
        self._source = ProposalSource(problem, seed, source, source_options)
        self._correction = Correction(problem.space)
        self._full_for_each = share / (1 - share) * full / (1 - full)  # number of full scores per screened network
        self._patience = at_least("patience", patience, 0)
        self._promised: dict[Levels, LossVector] = {}  # predicted losses of all screened networks
        self._sent: set[Levels] = set()  # networks promoted to a full score
        self._front: dict[
            Levels, LossVector
        ] = {}  # of those that were sent: what they promised, and then what they have

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
        """An answer with its predicted full losses in place of the measured ones."""
        levels, objectives = evaluation.candidate.levels, self._rungs.problem.objectives
        self._promised[levels] = self._estimates([levels])[0]
        values = {o.name: o.loss(x) for o, x in zip(objectives, self._promised[levels], strict=True)}  # own inverse
        return replace(evaluation, values={**evaluation.values, **values})

    def _estimates(self, rows: Sequence[Levels]) -> list[LossVector]:
        """(n, m) predicted full losses of screened networks."""
        small = self._rungs.losses[0]
        losses: list[LossVector] = self._correction.estimate(rows, np.array([small[row] for row in rows])).tolist()
        return losses

    def _promote(self) -> bool:
        """Queues the most promising network if a full score is due; returns whether it did."""
        screened = len(self._promised)
        if len(self._sent) > self._full_for_each * screened:
            return False
        return self._send(list(self._promised)[: max(1, screened - self._patience)])

    def _finish(self) -> bool:
        """Promotes from all networks, once nothing is pending and nothing else is new."""
        return not (self._rungs.waiting or self._rungs.queued) and self._send(list(self._promised))

    def _send(self, rows: Sequence[Levels]) -> bool:
        """Queues the network with the largest predicted gain; False if none has any."""
        new = [levels for levels in rows if levels not in self._sent]
        chosen = largest_gain([self._promised[levels] for levels in new], list(self._front.values()))
        if chosen is None:
            return False
        self._sent.add(new[chosen])
        self._front[new[chosen]] = self._promised[new[chosen]]
        return self._rungs.add([new[chosen]], 1)

    def _draw(self, n: int) -> bool:
        return self._rungs.add(self._source.draw(n - self._rungs.queued), 0)
