"""The loop between a searcher and an evaluator, and its replay from a journal."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from autoprune.core.contracts import Evaluator, Searcher
from autoprune.core.evaluation import Evaluation, merged
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.errors import JournalMismatch, RunFailed
from autoprune.run.records.columns import clashes
from autoprune.run.session.plugin_checks import proposals_of, tell

FIRST_FAILURES = 5  # the run stops after this many failures before the first success
REPEATS = 1000  # the run stops after this many proposals in a row that need no evaluation
BUDGET_ROUNDING = 1e-6  # shares of evaluations do not add up to whole ones exactly
WINDOW = 32  # candidates that may be asked and not yet told in a deterministic run

Append = Callable[[Mapping[str, Any]], None]
Key = tuple[tuple[int, ...], float]


@dataclass
class Controller:
    """Drives one search: asks, evaluates, tells, and records every step before the next.

    The budget counts evaluations; an evaluation on a share of the selection set counts as that share. Proposals that
    are already answered or outside the bounds are answered at once and cost nothing, and a network that is being
    evaluated is not evaluated twice. A network that was evaluated on fewer examples before is evaluated only on the
    remaining ones, if its values are means over examples; the training of one that was trained for fewer steps is
    continued.

    Attributes:
        problem: the problem of the searcher.
        searcher: proposes candidates.
        evaluator: evaluates them.
        budget: the number of evaluations.
        append: writes a record to the journal.
        on_step: called with the evaluations spent and each new evaluation.
        deterministic: whether answers are told in the order of the asks, instead of as they arrive, and the searcher is
            asked while fewer than `WINDOW` candidates are open, so that what it is told depends on neither the number
            of slots nor time.
        stop: returns the reason to end early, or "", from all evaluations told so far. Running evaluations are
            completed.
        on_ask: called with the candidates of each ask.
        told: all evaluations that the searcher was told.
    """

    problem: Problem
    searcher: Searcher
    evaluator: Evaluator
    budget: int
    append: Append
    on_step: Callable[[int, Evaluation], None] = lambda done, evaluation: None
    deterministic: bool = False
    stop: Callable[[Sequence[Evaluation]], str] = lambda told: ""
    on_ask: Callable[[Sequence[Candidate]], None] = lambda candidates: None
    told: list[Evaluation] = field(default_factory=list)
    _line: deque[Candidate] = field(default_factory=deque)  # asked, not yet told
    _waiting: list[Candidate] = field(default_factory=list)  # those in `_line` that are not being evaluated yet
    _flying: set[Key] = field(default_factory=set)
    _arrived: dict[Candidate, Evaluation] = field(default_factory=dict)  # answers whose turn has not come
    _recalled: dict[Key, Evaluation] = field(default_factory=dict)  # answers in the journal that are not told yet
    _known: dict[Key, Evaluation] = field(default_factory=dict)
    _partial: dict[tuple[int, ...], Evaluation] = field(default_factory=dict)  # by levels, with the most examples
    _before: dict[Candidate, Evaluation] = field(default_factory=dict)  # by candidate in line, the one it extends
    _spent: float = 0.0
    _dry: bool = False  # whether the searcher proposed nothing since the last tell
    _stopped: str = ""
    _repeats: int = 0
    _proven: bool = False  # whether any evaluation has succeeded

    def run(self) -> str:
        """Runs until the budget is spent or the searcher has ended; returns why it ended."""
        while True:
            while self._repeats < REPEATS and (self._ask() or self._answer_waiting() or self._tell_first()):
                pass
            if not self._flying:
                break
            self._collect_one()
        if not self._proven:
            raise RunFailed(self._why_failed())
        return self._why_ended()

    @property
    def done(self) -> int:
        """The number of evaluations spent; those on parts of the selection set are added up."""
        return int(self._spent + BUDGET_ROUNDING)

    def replay(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Brings a new searcher to the end of the journal. Candidates without an answer will be evaluated again."""
        for number, record in enumerate(records, start=1):
            if record["kind"] == "ask":
                self._replay_ask(number, record)
            elif record["kind"] == "answer":
                evaluation = Evaluation.from_json(record["evaluation"])
                self._recalled[self._key(evaluation.candidate)] = evaluation
            elif record["kind"] == "tell":
                evaluation = Evaluation.from_json(record["evaluation"])
                self._waiting.remove(evaluation.candidate)
                self._note(evaluation)

    def _replay_ask(self, number: int, record: Mapping[str, Any]) -> None:
        asked = proposals_of(self.searcher, record["n"], self.problem.space)
        now = _ask_record(record["n"], asked)
        if now != record:
            raise JournalMismatch(
                f"record {number}: the journal says the searcher asked for {_said(record)}, now it asks for "
                f"{_said(now)}. The searcher, its options or its library changed since; resume with the versions and "
                "options that the run was started with."
            )
        self._queue(asked)

    def _queue(self, candidates: Sequence[Candidate]) -> None:
        self._dry = not candidates
        self._line += candidates
        self._waiting += candidates
        for candidate in candidates:
            before = self._partial.get(self.problem.space.key(candidate))
            if before is not None and before.candidate.fidelity < candidate.fidelity:
                self._before[candidate] = before

    def _since(self, candidate: Candidate) -> float:
        """The share of the selection set that a candidate in line was evaluated on before."""
        return self._before[candidate].candidate.fidelity if candidate in self._before else 0.0

    def _share(self, candidate: Candidate) -> float:
        """The budget that the evaluation of a candidate in line takes."""
        return candidate.fidelity - self._since(candidate)

    def _ask(self) -> bool:
        """Asks for as many candidates as there is room for, and returns whether there are any."""
        window = WINDOW if self.deterministic else self.evaluator.slots
        left = self.budget - self._spent - sum(map(self._share, self._line))
        room = min(window - len(self._line), math.ceil(left - BUDGET_ROUNDING))
        if self._proven and not self._stopped:
            self._stopped = self.stop(self.told)
        if self._dry or room <= 0 or self._stopped:
            return False
        candidates = proposals_of(self.searcher, room, self.problem.space)
        self.append(_ask_record(room, candidates))
        self.on_ask(candidates)
        self._queue(candidates)
        return bool(candidates)

    def _answer_waiting(self) -> bool:
        """Finds an answer or a slot for each waiting candidate, and returns whether an answer was told."""
        before = len(self.told)
        waiting, self._waiting = self._waiting, []
        for candidate in waiting:
            key = self._key(candidate)
            if key in self._flying or candidate in self._arrived:
                self._waiting.append(candidate)  # the same network is being evaluated: its answer serves both
            elif (answer := self._answer_at_once(candidate)) is not None:
                self._arrive(answer)
            elif len(self._flying) < self.evaluator.slots:
                self._flying.add(key)
                self.evaluator.submit(replace(candidate, since=self._since(candidate)))
            else:
                self._waiting.append(candidate)
        return len(self.told) > before

    def _collect_one(self) -> None:
        evaluation = self._complete(self._whole(self._checked(self.evaluator.collect())))
        self._flying.remove(self._key(evaluation.candidate))
        if self.deterministic and evaluation.candidate != self._line[0]:
            self.append({"kind": "answer", "evaluation": evaluation.to_json()})
        self._arrive(evaluation)
        self.on_step(int(self._spent + self._arrived_new() + BUDGET_ROUNDING), evaluation)

    def _checked(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation, marked as failed if one of its names is also that of a cost or a column."""
        costs = self.problem.costs_of(evaluation.candidate)
        found = clashes((name for name, value in evaluation.values.items() if value != costs.get(name)), costs)
        if not (evaluation.ok and found):
            return evaluation
        cause = f"expected the fitness to report names of its own, but {'; '.join(found)}"
        return replace(evaluation, values={}, status="failed", cause=cause)

    def _whole(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation on all its examples, merged with the earlier one that it extends, if any."""
        before = self._before.get(replace(evaluation.candidate, since=0.0))
        return evaluation if before is None else merged(before, evaluation)

    def _arrived_new(self) -> float:
        """The budget taken by finished evaluations that are not told yet."""
        arrived = self._arrived.items()
        new = [c for c, e in arrived if e.status != "infeasible" and self._key(c) not in self._known]
        return sum(map(self._share, new))

    def _arrive(self, evaluation: Evaluation) -> None:
        """Tells an answer, or keeps it until its turn comes."""
        if self.deterministic:
            self._arrived[evaluation.candidate] = evaluation
        else:
            self._tell(evaluation)

    def _tell_first(self) -> bool:
        """In a deterministic run, tells the answer of the first in line, and returns whether it had one."""
        if not self._line or self._line[0] not in self._arrived:
            return False
        self._tell(self._arrived.pop(self._line[0]))
        return True

    def _tell(self, evaluation: Evaluation) -> None:
        self.append({"kind": "tell", "evaluation": evaluation.to_json()})
        self._note(evaluation)
        if not self._proven and len(self._known) >= FIRST_FAILURES:
            raise RunFailed(self._why_failed())

    def _note(self, evaluation: Evaluation) -> None:
        self._line.remove(evaluation.candidate)
        self._dry = False
        key = self._key(evaluation.candidate)
        if evaluation.status == "infeasible" or key in self._known:
            self._repeats += 1
        else:
            self._repeats = 0
            self._known[key] = evaluation
            self._spent += self._share(evaluation.candidate)
            if evaluation.ok and (evaluation.examples or evaluation.steps) and evaluation.candidate.fidelity < 1:
                self._partial[key[0]] = evaluation
        self._before.pop(evaluation.candidate, None)
        self._proven |= evaluation.ok
        self.told.append(evaluation)
        own = replace(evaluation, values=dict(evaluation.values))  # a searcher may keep and change it
        tell(self.searcher, own)

    def _key(self, candidate: Candidate) -> Key:
        return self.problem.space.key(candidate), candidate.fidelity

    def _answer_at_once(self, candidate: Candidate) -> Evaluation | None:
        key = self._key(candidate)
        if key in self._known:
            return self._known[key]
        if not self.problem.feasible(np.array([candidate.levels]))[0]:
            return Evaluation(candidate, {}, "infeasible", "outside the bounds")
        recalled = self._recalled.pop(key, None)
        return None if recalled is None else self._complete(recalled)

    def _complete(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with its costs, marked as failed if the value of an objective is missing."""
        values = {**evaluation.values, **self.problem.costs_of(evaluation.candidate)}
        missing = [o.name for o in self.problem.objectives if o.name not in values]
        if evaluation.ok and missing:
            cause = f"expected the fitness to report {missing}, it reported {sorted(evaluation.values)}"
            return replace(evaluation, values=values, status="failed", cause=cause)
        return replace(evaluation, values=values)

    def _why_ended(self) -> str:
        if self._stopped:
            return self._stopped
        if self._spent >= self.budget - BUDGET_ROUNDING:
            return "all evaluations are spent"
        if self._repeats >= REPEATS:
            return f"the last {REPEATS} proposals were known or outside the bounds"
        return "the searcher has nothing more to propose"

    def _why_failed(self) -> str:
        causes = dict.fromkeys(e.cause for e in self.told if e.status == "failed")
        return (
            f"the first {len(self._known)} evaluations all failed: {'; '.join(list(causes)[:3])}. "
            "Correct the cause and start again; the journal has every evaluation."
        )


def _ask_record(n: int, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """The journal's record of an ask; it has fidelities if one is below 1."""
    fidelities = [c.fidelity for c in candidates]
    partial = {"fidelities": fidelities} if any(fidelity < 1 for fidelity in fidelities) else {}
    return {"kind": "ask", "n": n, "candidates": [list(c.levels) for c in candidates], **partial}


def _said(record: Mapping[str, Any]) -> str:
    """The candidates of the record of an ask, for a message."""
    fidelities = f" at fidelities {record['fidelities']}" if "fidelities" in record else ""
    return f"{record['candidates']}{fidelities}"
