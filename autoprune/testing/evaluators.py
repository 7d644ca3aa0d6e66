"""The contract of evaluators."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from autoprune.core.contracts import Evaluator
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.testing.sentences import check_values, keeping


def check_evaluator(evaluator: Evaluator, candidates: Sequence[Candidate], *, failing: Candidate | None = None) -> None:
    """Raises AssertionError, with a sentence, where an evaluator breaks its contract (see core.contracts.Evaluator).

    Submits the first of at least two candidates, the others, and the first again: an ok answer of finite values each
    time, and the very same ones for the first. `failing` is a candidate whose evaluation must fail as a result.
    """
    with keeping("the evaluator", "A failure is an Evaluation with status 'failed' and a cause, never an exception."):
        _check_evaluator(evaluator, candidates, failing)


def _check_evaluator(evaluator: Evaluator, candidates: Sequence[Candidate], failing: Candidate | None) -> None:
    made = isinstance(evaluator, Evaluator) and not isinstance(evaluator, type)
    assert made, (
        f"expected an evaluator with slots, submit(candidate) and collect(), got {evaluator!r}. Pass one that is made"
    )
    assert len(candidates) >= 2, "check_evaluator needs at least two candidates"
    assert evaluator.slots >= 1, f"expected at least one slot, got {evaluator.slots}"
    answers = [_answered(evaluator, candidate) for candidate in (*candidates, candidates[0])]
    for answer in answers:
        assert answer.ok, f"expected an ok evaluation, got {answer.status}: {answer.cause}"
        check_values(answer.values)
    assert dict(answers[0].values) == dict(answers[-1].values), (
        f"the same candidate gave {dict(answers[0].values)}, and after another {dict(answers[-1].values)}: something "
        "of the candidate between was left behind"
    )
    if failing is not None:
        answer = _answered(evaluator, failing)
        assert not answer.ok, f"expected {failing} to fail as an Evaluation, got status {answer.status!r}"
        assert answer.cause, "a failed evaluation must say its cause"


def answers(evaluator: Evaluator, candidates: Iterable[Candidate]) -> Iterator[Evaluation]:
    """What comes of candidates, in the order of the answers, with the evaluator's slots kept full."""
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
