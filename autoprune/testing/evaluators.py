"""Contract test of evaluators."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from autoprune.core.contracts import Evaluator
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.testing.sentences import check_values, keeping


def check_evaluator(evaluator: Evaluator, candidates: Sequence[Candidate], *, failing: Candidate | None = None) -> None:
    """Checks that an evaluator keeps its contract (see core.contracts.Evaluator).

    The candidates are submitted one by one, and then the first one again. Each must be answered by an evaluation with
    status "ok" and finite values, and both evaluations of the first candidate must have the same values.

    Args:
        evaluator: the evaluator to check.
        candidates: at least two candidates that it can evaluate.
        failing: a candidate whose evaluation must have the status "failed" and a cause.

    Raises:
        AssertionError: the evaluator breaks its contract; the message says how, and what to do.
    """
    with keeping("the evaluator", "A failure is an Evaluation with status 'failed' and a cause, never an exception."):
        _check_evaluator(evaluator, candidates, failing)


def _check_evaluator(evaluator: Evaluator, candidates: Sequence[Candidate], failing: Candidate | None) -> None:
    made = isinstance(evaluator, Evaluator) and not isinstance(evaluator, type)
    assert made, (
        f"expected an evaluator with slots, submit(candidate) and collect(), got {evaluator!r}. Pass an instance"
    )
    assert len(candidates) >= 2, "check_evaluator needs at least two candidates"
    assert evaluator.slots >= 1, f"expected at least one slot, got {evaluator.slots}"
    answers = [_answered(evaluator, candidate) for candidate in (*candidates, candidates[0])]
    for answer in answers:
        assert answer.ok, f"expected an ok evaluation, got {answer.status}: {answer.cause}"
        check_values(answer.values)
    assert dict(answers[0].values) == dict(answers[-1].values), (
        f"expected the same values for the same candidate, got {dict(answers[0].values)}, and "
        f"{dict(answers[-1].values)} after another one. Undo what the evaluation of a candidate changes"
    )
    if failing is not None:
        answer = _answered(evaluator, failing)
        assert not answer.ok, f"expected {failing} to fail as an Evaluation, got status {answer.status!r}"
        assert answer.cause, "expected a failed evaluation with a cause, got none. Say what went wrong"


def answers(evaluator: Evaluator, candidates: Iterable[Candidate]) -> Iterator[Evaluation]:
    """Yields the evaluations of candidates as they arrive, keeping all slots of the evaluator busy.

    Args:
        evaluator: the evaluator that candidates are submitted to.
        candidates: the candidates, which are submitted in this order.
    """
    waiting, flying = deque(candidates), 0
    while waiting or flying:
        while waiting and flying < evaluator.slots:
            evaluator.submit(waiting.popleft())
            flying += 1
        yield evaluator.collect()
        flying -= 1


def _answered(evaluator: Evaluator, candidate: Candidate) -> Evaluation:
    evaluator.submit(candidate)
    answer = evaluator.collect()
    assert isinstance(answer, Evaluation), (
        f"expected collect() to return an autoprune.Evaluation, got a {type(answer).__name__}. Return "
        "Evaluation(candidate, values)"
    )
    assert answer.candidate == candidate, f"submitted {candidate}, collected {answer.candidate}"
    return answer
