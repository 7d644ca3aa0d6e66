"""The loop between a searcher and an evaluator, and its replay from a journal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autoprune.core.contracts import Evaluator, Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.errors import JournalMismatch, RunFailed

FIRST_FAILURES = 5  # when so many evaluations in a row fail before the first success, the run stops
REPEATS = 1000  # when so many proposals in a row need no evaluation, the searcher has nothing new

Append = Callable[..., None]


@dataclass
class Controller:
    """Drives one search: asks, evaluates, tells, and writes down every step before the next.

    The budget counts evaluations; proposals already answered or outside the bounds are answered at once and cost
    nothing. `append` writes a record to the journal.
    """

    problem: Problem
    searcher: Searcher
    evaluator: Evaluator
    budget: int
    append: Append
    on_step: Callable[[int, Evaluation], None] = lambda done, evaluation: None
    told: list[Evaluation] = field(default_factory=list)
    _pending: list[Candidate] = field(default_factory=list)  # asked, not yet submitted
    _known: dict[tuple[tuple[int, ...], float], Evaluation] = field(default_factory=dict)
    _flying: int = 0
    _repeats: int = 0
    _proven: bool = False  # whether any evaluation has succeeded

    def run(self) -> str:
        """Runs until the budget is spent or the searcher has ended; returns why it ended."""
        while True:
            self._fill_slots()
            if not self._flying:
                break
            self._collect_one()
        if not self._proven:
            raise RunFailed(self._why_failed())
        return self._why_ended()

    @property
    def done(self) -> int:
        """Evaluations spent."""
        return len(self._known)

    def _fill_slots(self) -> None:
        slots = self.evaluator.slots
        while self._flying < min(slots, self.budget - self.done) and self._repeats < REPEATS:
            if not self._pending and not self._ask(slots - self._flying):
                return
            self._start(self._pending.pop(0))

    def _start(self, candidate: Candidate) -> None:
        """Submits a candidate, or answers it at once when no evaluation is needed."""
        answer = self._answer_at_once(candidate)
        if answer is None:
            self._repeats = 0
            self._flying += 1
            self.evaluator.submit(candidate)
        else:
            self._repeats += 1
            self._tell(answer)

    def _collect_one(self) -> None:
        evaluation = self._complete(self.evaluator.collect())
        self._flying -= 1
        self._tell(evaluation)
        if not self._proven and self.done >= FIRST_FAILURES:
            raise RunFailed(self._why_failed())
        self.on_step(self.done, evaluation)

    def replay(self, records: Sequence[dict[str, Any]]) -> None:
        """Brings a fresh searcher to where the journal ends; what was asked and not told is evaluated again."""
        for number, record in enumerate(records, start=1):
            if record["kind"] == "ask":
                asked = self.searcher.ask(record["n"])
                if [list(c.levels) for c in asked] != record["candidates"]:
                    raise JournalMismatch(
                        f"record {number}: the journal says the searcher asked for {record['candidates']}, "
                        f"now it asks for {[list(c.levels) for c in asked]}. The searcher, its options or its library "
                        "changed since; resume with what the run was started with."
                    )
                self._pending += asked
            elif record["kind"] == "tell":
                evaluation = Evaluation.from_json(record["evaluation"])
                self._pending.remove(evaluation.candidate)
                self._note(evaluation)

    def _ask(self, n: int) -> bool:
        candidates = self.searcher.ask(n)
        for candidate in candidates:
            self.problem.space.check(candidate)
        record = {"kind": "ask", "n": n, "candidates": [list(c.levels) for c in candidates]}
        self.append(record, sync=False)  # an ask can be asked again
        self._pending += candidates
        return bool(candidates)

    def _tell(self, evaluation: Evaluation) -> None:
        self.append({"kind": "tell", "evaluation": evaluation.to_json()})
        self._note(evaluation)

    def _note(self, evaluation: Evaluation) -> None:
        if evaluation.status != "infeasible":
            self._known.setdefault(self._key(evaluation.candidate), evaluation)
        self._proven |= evaluation.ok
        self.told.append(evaluation)
        self.searcher.tell([evaluation])

    def _key(self, candidate: Candidate) -> tuple[tuple[int, ...], float]:
        return self.problem.space.key(candidate), candidate.fidelity

    def _answer_at_once(self, candidate: Candidate) -> Evaluation | None:
        known = self._known.get(self._key(candidate))
        if known is not None:
            return known
        if not self.problem.feasible(np.array([candidate.levels]))[0]:
            return Evaluation(candidate, {}, "infeasible", "outside the bounds")
        return None

    def _complete(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with its costs; failed when a value that is optimised is missing."""
        values = {**evaluation.values, **self.problem.costs_of(evaluation.candidate)}
        missing = [o.name for o in self.problem.objectives if o.name not in values]
        if evaluation.ok and missing:
            cause = f"expected the fitness to report {missing}, it reported {sorted(evaluation.values)}"
            return replace(evaluation, values=values, status="failed", cause=cause)
        return replace(evaluation, values=values)

    def _why_ended(self) -> str:
        if self.done >= self.budget:
            return "all evaluations are spent"
        if self._repeats >= REPEATS:
            return f"the last {REPEATS} proposals were known or outside the bounds"
        return "the searcher has nothing more to propose"

    def _why_failed(self) -> str:
        causes = dict.fromkeys(e.cause for e in self.told if e.status == "failed")
        return (
            f"the first {self.done} evaluations all failed: {'; '.join(list(causes)[:3])}. "
            "Correct the cause and start again; the journal has every evaluation."
        )
