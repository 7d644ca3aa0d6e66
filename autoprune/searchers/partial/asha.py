"""Asynchronous successive halving by non-dominated rank: no worker waits for a rung to fill.

Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, https://arxiv.org/abs/1810.05934,
algorithm 2; for several objectives Schmucker et al., Multi-objective Asynchronous Successive Halving, 2021,
https://arxiv.org/abs/2106.12639. Departures: the resource is the share of the selection examples, of which a promoted
network is scored only on the new ones; networks come from any searcher; no more than one in eta of a rung is ever
promoted until the source has ended: then the front of each rung is promoted to the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.searchers.partial.rungs import ProposalSource, Rungs, geometric

LATEST = 1000  # largest number of networks of a rung that are compared


class AshaSearch:
    """Promotes a network that is among the best of its rung if there is one, else starts a new network.

    Args:
        problem: the problem to search.
        seed: seed of the source.
        source: the name of the searcher that proposes networks.
        source_options: its options.
        eta: one network in `eta` of those answered at a rung is promoted; also the ratio of fidelities.
        least: the lowest fidelity; fidelities are 1, 1 / eta, ... down to it.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        source: str = "evolution",
        source_options: Mapping[str, Any] | None = None,
        eta: int = 3,
        least: float = 1 / 9,
    ) -> None:
        self._eta = at_least("eta", eta, 2)
        self.fidelities = geometric(least, eta)
        self._rungs = Rungs(problem, self.fidelities)
        self._source = ProposalSource(problem, seed, source, source_options)
        self._promoted: list[set[Levels]] = [set() for _ in range(self._rungs.top)]
        self._changed = [False] * self._rungs.top  # rungs with answers since their best were last computed

    def ask(self, n: int) -> list[Candidate]:
        while self._rungs.queued < n and (self._promote() or self._draw(n) or self._finish()):
            pass
        return self._rungs.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for rung, evaluation in self._rungs.record(evaluations):
            if rung < self._rungs.top:
                self._changed[rung] = True
            if rung == 0:
                self._source.tell(evaluation)

    def _promote(self) -> bool:
        """Queues the networks due for promotion, from the highest rung; returns whether there are any."""
        for rung in reversed(range(self._rungs.top)):
            if self._changed[rung]:
                self._changed[rung] = False
                due = self._due(rung)
                self._promoted[rung].update(due)
                if self._rungs.add(due, rung + 1):
                    return True
        return False

    def _due(self, rung: int) -> list[Levels]:
        """The best networks of a rung that were not promoted yet, as far as one in eta allows."""
        rows = list(self._rungs.losses[rung])
        latest = rows[-LATEST:]
        best = self._rungs.best(latest, rung, len(latest) // self._eta)
        new = [levels for levels in best if levels not in self._promoted[rung]]
        return new[: max(0, len(rows) // self._eta - len(self._promoted[rung]))]

    def _draw(self, n: int) -> bool:
        return self._rungs.add(self._source.draw(n - self._rungs.queued), 0)

    def _finish(self) -> bool:
        """Promotes the fronts of the rungs, once the source has ended, nothing is pending and nothing else is new."""
        if self._rungs.waiting or self._rungs.queued:
            return False
        for rung in range(self._rungs.top):
            self._rungs.add(self._rungs.leaders(rung), rung + 1)
        return self._rungs.queued > 0
