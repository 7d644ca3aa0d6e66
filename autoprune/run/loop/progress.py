"""Reports a running search: progress for the user, and an event for every evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from autoprune.core.contracts import Evaluator, Remarking, Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.run.executors.pool import Pool
from autoprune.run.loop.tracking import Trackers, facts_of
from autoprune.run.records.events import Events
from autoprune.run.session.job import Progress
from autoprune.run.session.session import Session

DEFAULT_SHARE = 0.5  # bound on the first cost for the best shown in the progress, if the job has no budget


class SearchProgress:
    """Follows a search: counts failed evaluations and finds the best one within the budget.

    The `remark` of a searcher that has one (core.contracts.Remarking) is added to the progress, and once to the events.
    """

    def __init__(
        self, session: Session, searcher: Searcher, evaluator: Evaluator, events: Events, trackers: Trackers
    ) -> None:
        self._trackers = trackers
        self._session, self._searcher, self._evaluator, self._events = session, searcher, evaluator, events
        self._remark = ""
        self._bounds = _bounds(session)
        self._objective = next((o for o in session.problem.objectives if o.name not in session.dense_costs), None)
        self._best = math.inf
        self._failed = 0
        self._cause = ""

    def begin(self, done: int, told: Sequence[Evaluation], folder: Path | None) -> None:
        """Starts before the first step of a search, with the evaluations of a journal that is continued."""
        self._trackers.started(facts_of(self._session, folder, done))
        for evaluation in told:
            self._learn(evaluation)
        facts = self._session.finetune_facts
        finetune = {"finetune": facts} if facts else {}
        self._events.add("search", {"done": done, "evaluations": self._session.job.evaluations, **finetune})
        self._say(done)

    def step(self, done: int, evaluation: Evaluation) -> None:
        self._events.warn(evaluation.remark)
        self._trackers.evaluated(evaluation, done, self._session.job.evaluations)
        self._learn(evaluation)
        facts = {"done": done, "status": evaluation.status, "seconds": round(evaluation.seconds, 4)}
        steps = {"steps": evaluation.steps} if evaluation.steps else {}
        cause = {"cause": evaluation.cause} if evaluation.cause else {}
        self._events.add("evaluation", {**facts, "worker": evaluation.worker, **steps, **cause})
        if isinstance(self._searcher, Remarking) and self._searcher.remark != self._remark:
            self._remark = self._searcher.remark
            self._events.add("remark", {"done": done, "remark": self._remark})
        self._say(done)

    def _learn(self, evaluation: Evaluation) -> None:
        if evaluation.status in ("failed", "timeout"):
            self._failed += 1
            self._cause = evaluation.cause
        elif self._objective and self._is_within(evaluation):
            self._best = min(self._best, self._objective.loss(evaluation.values[self._objective.name]))

    def _is_within(self, evaluation: Evaluation) -> bool:
        """Whether an evaluation has full fidelity and is within the bounds."""
        scored = evaluation.ok and evaluation.candidate.fidelity == 1
        return scored and all(bound.admits(evaluation.values[bound.name]) for bound in self._bounds)

    def _say(self, done: int) -> None:
        parts = []
        if self._objective and math.isfinite(self._best):
            within = ", ".join(_share(bound, self._session.dense_costs[bound.name]) for bound in self._bounds)
            parts.append(f"{self._objective.name} {abs(self._best):.4g} at {within}")
        if isinstance(self._evaluator, Pool):
            parts.append(f"{self._evaluator.alive} workers")
        if self._remark:
            parts.append(self._remark)
        if self._failed:
            parts.append(f"{self._failed} failed, last: {self._cause[:120]}")
        self._session.progress(Progress("search", done, self._session.job.evaluations, ", ".join(parts)))


def _bounds(session: Session) -> Sequence[Bound]:
    """The bounds of the job on costs, or half of its first cost if it has none."""
    if session.problem.bounds:
        return session.problem.bounds
    costs: list[Objective] = [o for o in session.problem.objectives if o.name in session.dense_costs]
    return [Bound(costs[0].name, "<=", DEFAULT_SHARE * session.dense_costs[costs[0].name])] if costs else []


def _share(bound: Bound, dense: float) -> str:
    return f"{bound.name}<={bound.value / dense:.3g}"
