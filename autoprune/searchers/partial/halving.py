"""Successive halving and Hyperband: many networks on few examples, the best of them on more.

Jamieson and Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS 2016,
https://arxiv.org/abs/1502.07943; Li et al., Hyperband, JMLR 18, 2018, https://arxiv.org/abs/1603.06560, algorithm 1.
Departures: the resource is the share of the selection examples, and a promoted network is scored only on the new ones;
the best are those of the first fronts, spread out, so that a whole front is searched for (Schmucker et al., MO-ASHA,
2021, https://arxiv.org/abs/2106.12639); networks come from any searcher, where theirs are random.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.searchers.partial.rungs import ProposalSource, Rungs, geometric


class HalvingSearch:
    """Brackets one after the other: networks start at a low fidelity, and one in `eta` is promoted to the next.

    Ends when the source has ended.

    Args:
        problem: the problem to search.
        seed: seed of the source.
        source: the name of the searcher that proposes networks.
        source_options: its options.
        width: the number of networks of a bracket that starts at the lowest fidelity.
        eta: the ratio of fidelities and of networks from rung to rung.
        least: the lowest fidelity; fidelities are 1, 1 / eta, ... down to it.
        hyperband: whether brackets start at each fidelity in turn, with fewer networks the higher they start.

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
        width: int = 27,
        eta: int = 3,
        least: float = 1 / 9,
        hyperband: bool = False,
    ) -> None:
        self._eta = at_least("eta", eta, 2)
        self._width = at_least("width", width, 1)
        self.fidelities = geometric(least, eta)
        self._rungs = Rungs(problem, self.fidelities)
        self._source = ProposalSource(problem, seed, source, source_options)
        self._starts = itertools.cycle(range(len(self.fidelities)) if hyperband else (0,))
        self._rung = 0
        self._first = 0  # the first rung of the bracket
        self._bracket: list[Levels] = []

    def ask(self, n: int) -> list[Candidate]:
        if n > 0 and not self._rungs.queued and not self._rungs.waiting:
            self._go_on()
        return self._rungs.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        for rung, evaluation in self._rungs.record(evaluations):
            if rung == self._first:
                self._source.tell(evaluation)

    def _go_on(self) -> None:
        """Promotes the best of the bracket; if none is left, starts another bracket."""
        survivors = self._rungs.best(self._bracket, self._rung, math.ceil(len(self._bracket) / self._eta))
        if survivors and self._rung < self._rungs.top:
            self._bracket, self._rung = survivors, self._rung + 1
        else:
            self._rung = self._first = next(self._starts)
            self._bracket = self._drawn()
        self._rungs.add(self._bracket, self._rung)

    def _drawn(self) -> list[Levels]:
        """The networks of a bracket: Hyperband's n_s, also for a width other than eta to the number of rungs."""
        rungs = len(self.fidelities)
        share = rungs / (rungs - self._first) / self._eta**self._first
        return self._source.draw(max(1, math.ceil(self._width * share - 1e-9)))
