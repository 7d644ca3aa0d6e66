"""Search with a predictor: measure a few networks, learn to predict the others, search on predictions, repeat.

LINAS (Cummings et al., A Hardware-Aware Framework for Accelerating Neural Architecture Search Across Modalities, 2022,
https://arxiv.org/abs/2205.10358), the search of Intel's DyNAS-T (https://github.com/IntelLabs/DyNAS-T). Departures:
costs are not predicted but computed; the best new networks that the inner search has seen are measured next, spread
over the range of costs, where theirs measures its last population, known networks included; one regressor where theirs
chooses between a ridge and a support vector regression; networks outside the bounds are repaired, where theirs has no
bounds; the next round begins once half of a round is answered, so that workers do not wait for the last of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import nondominated
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.plan.repair import stratified
from autoprune.searchers.common.proposals import Proposals
from autoprune.searchers.fronts.evolution import EvolutionSearch
from autoprune.searchers.fronts.predictor import Misses, Predict, Predictor, PredictorKind
from autoprune.searchers.partial.rungs import best_rows

FEWEST = 2  # least number of measured networks to learn from

Model = Mapping[int, Predict]  # predictors by position of the objective

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """The result of one round.

    Attributes:
        measured: the number of networks measured in it.
        learned_from: the number of networks measured before, none of which is among the `measured`.
        misses: by objective, the errors of predictions on these held-out networks; empty in the first round and if
            nothing could be learned.
    """

    measured: int
    learned_from: int
    misses: Mapping[str, Misses]

    def __str__(self) -> str:
        said = "; ".join(f"{name} predicted with {misses}" for name, misses in self.misses.items())
        return f"{self.measured} networks measured" + (f", {said}, from {self.learned_from}" if said else "")


@dataclass
class _Open:
    """A round in progress: its networks, and the (m,) predicted losses of each; empty if nothing was learned."""

    networks: Sequence[Levels]
    learned_from: int
    predicted: Mapping[Levels, Sequence[float]]
    unanswered: set[Levels]


class SurrogateSearch:
    """Rounds of `population` networks: the first as in evolution, later ones the best of `imagined` predicted ones.

    The attribute `rounds` holds the prediction errors of each round. Ends when nothing new is found; spaces of up to
    65,536 networks are finished systematically.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        population: the number of networks per round.
        predictor: "ridge" or "boosting" (see searchers.fronts.predictor); needs scikit-learn.
        imagined: the number of networks that are predicted per round.

    Raises:
        ConfigError: an option is out of range, or scikit-learn is not installed.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        population: int = 50,
        predictor: PredictorKind = "ridge",
        imagined: int = 2000,
    ) -> None:
        self._proposals = Proposals(problem)
        self._predictor = Predictor(problem.space, predictor)
        self._size = at_least("population", population, 2)
        self._imagined = at_least("imagined", imagined, 1)
        self._rng = np.random.default_rng(seed)
        self._open: list[_Open] = []
        self._begun = self._exhausted = False
        self.rounds: list[Round] = []

    @property
    def remark(self) -> str:
        """The quality of the last round's predictions, in a few words; empty before the first."""
        last = next((r for r in reversed(self.rounds) if r.misses), None)
        return ", ".join(f"{name} predicted with tau {m.tau:.2f}" for name, m in last.misses.items()) if last else ""

    def ask(self, n: int) -> list[Candidate]:
        if n > 0 and not self._proposals.queued and self._is_due():
            self._begin_round()
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        told = {evaluation.candidate.levels for evaluation in evaluations}
        for round_ in self._open:
            round_.unanswered -= told
            if not round_.unanswered:
                self._close(round_)
        self._open = [round_ for round_ in self._open if round_.unanswered]

    def _is_due(self) -> bool:
        """Whether at least half of the last round is answered, and there may be another."""
        return not self._exhausted and (not self._open or len(self._open[-1].unanswered) <= self._size / 2)

    def _close(self, round_: _Open) -> None:
        losses = self._proposals.losses
        rows = [levels for levels in round_.networks if levels in losses]
        misses = {}
        for i in self._measured() if rows and round_.predicted else ():
            pairs = [(round_.predicted[levels][i], losses[levels][i]) for levels in rows]
            misses[self._proposals.problem.objectives[i].name] = Misses.of(*zip(*pairs, strict=True))
        self.rounds.append(Round(len(rows), round_.learned_from, misses))
        _log.info("round %d: %s", len(self.rounds), self.rounds[-1])

    def _measured(self) -> list[int]:
        """Positions of the objectives that are not costs."""
        problem = self._proposals.problem
        return [i for i, o in enumerate(problem.objectives) if o.name not in problem.costs.names]

    def _begin_round(self) -> None:
        """Queues the networks with the best predictions, and random ones if these are too few."""
        known = len(self._proposals.losses)
        model = self._learn() if self._begun and known >= FEWEST else None
        added = self._added(self._first() if not self._begun else self._best(model) if model is not None else ())
        self._begun = True
        random = stratified(self._proposals.problem, self._rng, max(self._size - len(added), 0))
        added += self._added(tuple(row.tolist()) for row in random)
        added = added or self._added(self._proposals.remaining(self._size))
        self._exhausted = not added
        if added:
            predicted = {} if model is None else dict(zip(added, self._predicted(model, added).tolist(), strict=True))
            self._open.append(_Open(added, known if predicted else 0, predicted, set(added)))

    def _added(self, rows: Iterable[Levels]) -> list[Levels]:
        """Queues networks; returns the new ones."""
        return [levels for levels in rows if self._proposals.add(levels)]

    def _seed(self) -> int:
        return int(self._rng.integers(2**31))

    def _first(self) -> list[Levels]:
        begin = EvolutionSearch(self._proposals.problem, seed=self._seed(), population=self._size)
        return [candidate.levels for candidate in begin.ask(self._size)]

    def _learn(self) -> Model:
        """A predictor for each measured objective, by its position."""
        rows = np.array(list(self._proposals.losses))
        losses = np.array(list(self._proposals.losses.values()))
        return {i: self._predictor.fit(rows, losses[:, i], self._seed()) for i in self._measured()}

    def _predicted(self, model: Model, rows: Sequence[Levels]) -> np.ndarray:
        """(n, m) losses of n networks: computed costs, and predictions of the other objectives."""
        problem = self._proposals.problem
        levels = np.array(rows)
        costs = problem.cost_values(levels)
        columns = [
            model[i](levels) if i in model else [o.loss(value) for value in costs[o.name].tolist()]
            for i, o in enumerate(problem.objectives)
        ]
        return np.array(columns, dtype=float).T

    def _best(self, model: Model) -> list[Levels]:
        """Up to `population` new networks of those imagined, front after front."""
        seen = self._imagine(model)
        new = [levels for levels in seen if not self._proposals.knows(levels)]
        losses = np.array([seen[levels] for levels in new])
        return [new[index] for index in best_rows(losses, self._size)]

    def _imagine(self, model: Model) -> dict[Levels, list[float]]:
        """The networks that an evolution on predictions visits, starting at the measured front, and their losses."""
        known = self._proposals.losses
        best = nondominated(np.array(list(known.values())))
        front = [levels for levels, keep in zip(known, best, strict=True) if keep]
        problem = self._proposals.problem
        inner = EvolutionSearch(problem, seed=self._seed(), population=self._size, seeds=front)
        seen: dict[Levels, list[float]] = {}
        while len(seen) < self._imagined and (asked := [c.levels for c in inner.ask(self._size)]):
            losses = self._predicted(model, asked).tolist()
            seen |= zip(asked, losses, strict=True)
            inner.tell([imagined(problem, levels, row) for levels, row in zip(asked, losses, strict=True)])
        return seen


def imagined(problem: Problem, levels: Levels, losses: Sequence[float]) -> Evaluation:
    """An evaluation that holds (m,) predicted losses."""
    pairs = zip(problem.objectives, losses, strict=True)
    return Evaluation(Candidate(levels), {objective.name: objective.loss(loss) for objective, loss in pairs})
