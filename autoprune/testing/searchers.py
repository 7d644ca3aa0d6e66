"""Contract test of searchers."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from autoprune.core.contracts import Searcher, fidelities_of, reads_parts
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.process import numpy_seeded
from autoprune.core.space import Candidate
from autoprune.testing.sentences import keeping
from autoprune.testing.synthetic import Synthetic, synthetic_problem

MakeSearcher = Callable[[Problem, int], Searcher]
Answer = Callable[[int, Candidate], Evaluation]  # (number of candidates asked so far, candidate) -> its evaluation

_ADVICE = "See autoprune.core.contracts.Searcher for what a searcher must do."


def check_searcher(make: MakeSearcher, *, evaluations: int = 60, seeded: bool = True) -> None:
    """Checks that a searcher keeps its contract (see core.contracts.Searcher).

    The searcher runs on small synthetic problems of one to three objectives, with and without a budget and with one or
    three candidates in flight. Its proposals must lie in the space and within the bounds, and no network may be
    proposed twice. Equal seeds and calls must give equal proposals, without use of a global random state. The searcher
    must go on after failed evaluations and NaN, end when a small space is exhausted, and propose the same when an
    objective's direction and sign are both flipped. One of the problems has branches, which can be removed as a whole.

    Args:
        make: a class or function that makes the searcher from (problem, seed).
        evaluations: the number of evaluations in each of these runs.
        seeded: whether the proposals depend on the seed, which is also checked.

    Raises:
        AssertionError: the searcher breaks its contract; the message says how, and what to do.
    """
    with keeping("the searcher", _ADVICE):
        for objectives in (1, 2, 3):
            for budget in (None, 0.4):
                synthetic = synthetic_problem(units=5, levels=4, seed=1, objectives=objectives, budget=budget)
                _check_trace(make, synthetic, evaluations)
        _check_trace(make, synthetic_problem(units=4, levels=4, seed=1, budget=0.4, branches=2), evaluations)
        _check_survives(make, evaluations)
        _check_ends(make)
        _check_directions(make, evaluations)
        _check_seeds(make, evaluations, seeded)


def trace(searcher: Searcher, problem: Problem, answer: Answer, evaluations: int, *, slots: int = 1) -> list[Candidate]:
    """Runs a searcher and returns its proposals in order, after checking each of them.

    Args:
        searcher: the searcher to run.
        problem: the problem that it was made for.
        answer: gives the evaluation of a candidate, from the number of candidates asked so far and the candidate.
        evaluations: the number of proposals after which the run ends.
        slots: the largest number of candidates in flight; the one asked last is answered first.

    Raises:
        AssertionError: a proposal breaks the contract.
    """
    _check_made(searcher)
    asked: list[Candidate] = []
    flying: list[Candidate] = []
    seen: set[tuple[tuple[int, ...], float]] = set()
    known_fidelities = {*fidelities_of(searcher), 1.0}
    while len(asked) < evaluations:
        new = searcher.ask(min(slots - len(flying), evaluations - len(asked)))
        _check_asked(problem, new, slots - len(flying), seen)
        assert {c.fidelity for c in new} <= known_fidelities, f"expected fidelities of {known_fidelities}, got {new}"
        asked += new
        flying += new
        if not flying:
            assert searcher.ask(1) == [], "a searcher that has ended ([] while nothing is pending) proposed again"
            return asked
        _tell(searcher, _in_parts(answer(len(asked), flying.pop()), searcher))
    return asked


def _tell(searcher: Searcher, evaluation: Evaluation) -> None:
    told, before = [evaluation], repr([evaluation])
    searcher.tell(told)
    assert repr(told) == before, (
        f"tell changed what it was given from {before} to {told!r}: keep a copy, such as dict(evaluation.values)"
    )


def _check_made(searcher: object) -> None:
    made = isinstance(searcher, Searcher) and not isinstance(searcher, type)
    assert made, (
        f"expected a searcher with ask(n) and tell(evaluations), got {searcher!r}. Pass a class or function that makes "
        "one from (problem, seed)"
    )


def _in_parts(evaluation: Evaluation, searcher: Searcher) -> Evaluation:
    """The evaluation, with the same values for every part if the searcher reads parts."""
    if not reads_parts(searcher):
        return evaluation
    count = sum(fidelity <= evaluation.candidate.fidelity for fidelity in fidelities_of(searcher))
    return replace(evaluation, parts={name: (value,) * count for name, value in evaluation.values.items()})


def _check_asked(problem: Problem, new: Sequence[Candidate], n: int, seen: set[tuple[tuple[int, ...], float]]) -> None:
    assert isinstance(new, list | tuple), (
        f"expected ask({n}) to return a list of candidates, got a {type(new).__name__}. Return [] for none"
    )
    assert len(new) <= n, f"asked for at most {n} candidates, got {len(new)}"
    for candidate in new:
        assert isinstance(candidate, Candidate), (
            f"expected ask({n}) to return autoprune.Candidate objects, got a {type(candidate).__name__} among them. "
            "Return Candidate(levels) with a tuple of level indices"
        )
        problem.space.check(candidate)
        key = problem.space.key(candidate), candidate.fidelity
        assert key not in seen, f"the network {key[0]} was proposed twice at fidelity {key[1]:g}"
        assert problem.feasible(np.array([candidate.levels]))[0], f"{candidate} is outside the bounds {problem.bounds}"
        seen.add(key)


def _check_trace(make: MakeSearcher, synthetic: Synthetic, evaluations: int) -> None:
    for slots in (1, 3):
        runs = []
        for shift in (1, 2):  # different global states: a searcher that reads them proposes something else
            with _global_state(shift):
                searcher = make(synthetic.problem, 7)
                runs.append(trace(searcher, synthetic.problem, _answers(synthetic), evaluations, slots=slots))
        assert runs[0], "the searcher proposed nothing at all"
        assert runs[0] == runs[1], (
            f"the same seed and the same calls gave different proposals with {slots} in flight: draw from a generator "
            "made from the seed, and keep state in the searcher alone"
        )


def _check_survives(make: MakeSearcher, evaluations: int) -> None:
    """Asserts that the searcher goes on when every second answer is bad, and when all of them are."""
    synthetic = synthetic_problem(units=5, levels=4, seed=1)
    for share in (2, 1):
        found = trace(make(synthetic.problem, 3), synthetic.problem, _bad(synthetic, share), evaluations, slots=2)
        assert found, "the searcher proposed nothing at all"


def _check_ends(make: MakeSearcher) -> None:
    synthetic = synthetic_problem(units=2, levels=3, seed=1)
    for bad in (False, True):
        answer = _bad(synthetic, 2) if bad else _answers(synthetic)
        searcher = make(synthetic.problem, 3)
        count = synthetic.problem.space.count * len(fidelities_of(searcher) or (1.0,))
        found = trace(searcher, synthetic.problem, answer, count + 1, slots=2)
        assert len(found) <= count, f"a space of {count} networks and fidelities was asked {len(found)} times"


def _check_directions(make: MakeSearcher, evaluations: int) -> None:
    """Asserts that maximising accuracy and minimising its negative give the same proposals."""
    up = synthetic_problem(units=5, levels=4, seed=1)
    flipped = (Objective("error", "min"), *up.problem.objectives[1:])
    down = replace(up, problem=replace(up.problem, objectives=flipped))
    found = [trace(make(s.problem, 3), s.problem, _answers(s), evaluations) for s in (up, down)]
    assert found[0] == found[1], "maximising a value and minimising its negative gave different proposals"


def _check_seeds(make: MakeSearcher, evaluations: int, seeded: bool) -> None:
    synthetic = synthetic_problem(units=5, levels=4, seed=1)
    found = [trace(make(synthetic.problem, s), synthetic.problem, _answers(synthetic), evaluations) for s in (0, 1)]
    assert (found[0] != found[1]) == seeded, (
        "two seeds gave the same proposals: the seed is not used"
        if seeded
        else "two seeds gave different proposals, although `seeded` is False"
    )


def _answers(synthetic: Synthetic) -> Answer:
    return lambda _, candidate: synthetic.evaluate(candidate)


def _bad(synthetic: Synthetic, every: int) -> Answer:
    """Makes one answer in `every` bad: in turn failed, infeasible, timed out, or ok with NaN or infinite values."""

    def answer(number: int, candidate: Candidate) -> Evaluation:
        good = synthetic.evaluate(candidate)
        wrong = dict.fromkeys(good.values, math.nan), dict.fromkeys(good.values, math.inf)
        kinds = [
            Evaluation(candidate, status="failed", cause="a test"),
            Evaluation(candidate, status="infeasible", cause="a test"),
            Evaluation(candidate, status="timeout", cause="a test"),
            *(Evaluation(candidate, values) for values in wrong),
        ]
        return good if number % every else kinds[number // every % len(kinds)]

    return answer


@contextmanager
def _global_state(seed: int) -> Iterator[None]:
    """Seeds the global generators, asserts that the block does not use them, and restores them."""
    before = random.getstate()
    with numpy_seeded(seed):
        try:
            random.seed(seed)
            moved = _global_states()
            yield
            assert _global_states() == moved, "the global random state changed: draw from a generator of your own"
        finally:
            random.setstate(before)


def _global_states() -> tuple[tuple[Any, ...], bytes]:
    """The states of `random` and of numpy's global generator, the latter as bytes, which can be compared."""
    return random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
