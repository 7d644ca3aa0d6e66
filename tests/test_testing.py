"""The contract tests must fail where a contract is broken."""

from __future__ import annotations

import itertools
import os
import random
import re

import numpy as np
import pytest
import torch

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.errors import PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.scorer import checked_values
from autoprune.testing import check_evaluator, check_fitness, check_searcher, synthetic_problem


class Enumerating:
    """A searcher that keeps the contract; the classes below break it in one way each."""

    def __init__(self, problem, seed):
        rng = np.random.default_rng(seed)
        rows = np.array(list(itertools.product(*(range(size) for size in problem.space.sizes))))
        rows = rows[problem.feasible(rows)]
        self.problem = problem
        self.left = [Candidate(tuple(row)) for row in rng.permutation(rows).tolist()]

    def ask(self, n):
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def tell(self, evaluations):
        self.last = evaluations


class Repeats(Enumerating):
    def ask(self, n):
        return self.left[:n]


class TooMany(Enumerating):
    def ask(self, n):
        return super().ask(n + 1)


class IgnoresBounds(Enumerating):
    def ask(self, n):
        return [Candidate((0,) * len(c.levels)) for c in super().ask(n)]


class OutsideTheSpace(Enumerating):
    def ask(self, n):
        return [Candidate((*c.levels[1:], 99)) for c in super().ask(n)]


class GlobalRandom(Enumerating):
    def ask(self, n):
        random.shuffle(self.left)
        return super().ask(n)


class GlobalNumpy(Enumerating):
    def ask(self, n):
        np.random.random()  # noqa: NPY002
        return super().ask(n)


class OwnClock(Enumerating):
    made = 0

    def __init__(self, problem, seed):
        OwnClock.made += 1
        super().__init__(problem, seed + OwnClock.made)


class NeedsValues(Enumerating):
    def tell(self, evaluations):
        self.last = [e.values["accuracy"] for e in evaluations]


class ReadsRawValues(Enumerating):
    def tell(self, evaluations):
        name = self.problem.objectives[0].name
        if any(e.values.get(name, 0) > 0 for e in evaluations):
            self.left.reverse()


class RoundsValues(Enumerating):
    """Writes to the values that it is told."""

    def tell(self, evaluations):
        for evaluation in evaluations:
            evaluation.values["accuracy"] = 0.0


class Seedless(Enumerating):
    def __init__(self, problem, seed):
        super().__init__(problem, 0)


class Silent(Enumerating):
    def ask(self, n):
        return []


class WakesUp(Enumerating):
    def ask(self, n):
        self.calls = getattr(self, "calls", 0) + 1
        return [] if self.calls == 4 else super().ask(n)


def test_a_searcher_that_keeps_the_contract_passes():
    check_searcher(Enumerating)
    check_searcher(Seedless, seeded=False)


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (Repeats, "was proposed twice"),
        (TooMany, "asked for at most 1 candidates, got 2"),
        (IgnoresBounds, "outside the bounds|proposed twice"),
        (GlobalRandom, "global random state changed"),
        (GlobalNumpy, "global random state changed"),
        (OwnClock, "same seed and the same calls gave different proposals"),
        (ReadsRawValues, "maximising a value and minimising its negative"),
        (Seedless, "the seed is not used"),
        (RoundsValues, "tell changed what it was given from .* keep a copy"),
        (Silent, "proposed nothing at all"),
        (WakesUp, "has ended .* proposed again"),
    ],
)
def test_a_searcher_that_breaks_the_contract_is_told_how(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_searcher(broken)


class NothingAtAll(Enumerating):
    def ask(self, n):
        return None


class LevelsAlone(Enumerating):
    def ask(self, n):
        return [candidate.levels for candidate in super().ask(n)]


class NeverTold:
    def __init__(self, problem, seed):
        pass

    def ask(self, n):
        return []


class CannotBeMade:
    def __init__(self, problem, seed):
        self.sizes = problem.sizes


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (OutsideTheSpace, "expected 5 level indices.* Give them as a tuple of plain integers"),
        (
            NeedsValues,
            "expected the searcher to keep its contract, but it raised KeyError: 'accuracy' in .*test_testing.py",
        ),
        (NothingAtAll, "expected ask.1. to return a list of candidates, got a NoneType. Return .. for none"),
        (LevelsAlone, "to return autoprune.Candidate objects, got a tuple among them"),
        (NeverTold, "expected a searcher with ask.n. and tell.evaluations., got .*NeverTold"),
        (CannotBeMade, "it raised AttributeError: .* has no attribute 'sizes' in __init__"),
        (lambda problem, seed: Enumerating, "Pass a class or function that makes one from .problem, seed."),
        (lambda problem: Enumerating(problem, 0), "it raised TypeError: .*takes 1 positional argument"),
    ],
)
def test_what_a_searcher_raises_and_what_is_no_searcher_is_a_sentence(broken, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_searcher(broken)


def test_the_synthetic_problem_is_what_it_says():
    synthetic = synthetic_problem(units=3, levels=4, interaction=0.5)
    assert synthetic.kl((0, 0, 0)) == 0
    removed = np.array([0.25, 0.5, 0.0])
    expected = synthetic.weights @ removed**2 + synthetic.pairs[0] * 0.125
    assert synthetic.kl((1, 2, 0)) == pytest.approx(expected)
    values = synthetic.evaluate(Candidate((1, 2, 0))).values
    assert values["accuracy"] == pytest.approx(0.9 * np.exp(-expected) + 0.1)
    assert values["params"] == 9 * 8 * (12 + 8 + 16)
    assert synthetic.evaluate(Candidate((0, 0, 0))).values["accuracy"] == 1.0


class Measuring:
    """An evaluator that keeps the contract, or leaves something behind, or raises its failures' statuses wrongly."""

    slots = 1

    def __init__(self, *, drift=0.0, status="failed", cause="a test", value=1.0):
        self.drift, self.status, self.cause, self.value, self.count = drift, status, cause, value, 0

    def submit(self, candidate):
        self.count += 1
        self.candidate = candidate

    def collect(self):
        if self.candidate.levels[0] == 9:
            return Evaluation(self.candidate, status=self.status, cause=self.cause)
        return Evaluation(
            self.candidate, {"accuracy": self.value + self.drift * self.count if self.drift else self.value}
        )


class Answering:
    """An evaluator with the same answer to everything."""

    slots = 1

    def __init__(self, answer):
        self.answer = answer

    def submit(self, candidate):
        pass

    def collect(self):
        return self.answer


class Raising(Answering):
    def __init__(self):
        pass

    def submit(self, candidate):
        raise RuntimeError("no slot")


CANDIDATES = [Candidate((0,)), Candidate((1,))]


def test_an_evaluator_that_keeps_the_contract_passes():
    check_evaluator(Measuring(), CANDIDATES, failing=Candidate((9,)))


@pytest.mark.parametrize(
    ("evaluator", "sentence"),
    [
        (Measuring(drift=1e-15), "expected the same values for the same candidate, got"),
        (Measuring(value=float("nan")), "expected accuracy to be finite, got nan"),
        (Measuring(value="high"), "expected accuracy to be a number, got 'high' of type str"),
        (Measuring(status="ok"), "to fail as an Evaluation, got status 'ok'"),
        (Measuring(cause=""), "expected a failed evaluation with a cause, got none"),
    ],
)
def test_an_evaluator_that_breaks_the_contract_is_told_how(evaluator, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_evaluator(evaluator, CANDIDATES, failing=Candidate((9,)))


@pytest.mark.parametrize(
    ("evaluator", "sentence"),
    [
        (object(), "expected an evaluator with slots, submit.candidate. and collect"),
        (Measuring, "Pass an instance"),
        (Answering(None), "expected collect.. to return an autoprune.Evaluation, got a NoneType"),
        (Answering(Evaluation(Candidate((9,)), {"a": 1.0})), "submitted .* collected"),
        (Measuring(value=None), "expected accuracy to be a number, got None"),
        (Raising(), "the evaluator to keep its contract, but it raised RuntimeError: no slot in submit"),
    ],
)
def test_what_an_evaluator_raises_and_what_is_none_is_a_sentence(evaluator, sentence):
    with pytest.raises(AssertionError, match=sentence):
        check_evaluator(evaluator, CANDIDATES)


def changes_weights(model, batches):
    with torch.no_grad():
        model.weight += 1
    return 1.0


def test_a_fitness_is_a_number_or_numbers_by_name_and_changes_nothing():
    model = torch.nn.Linear(2, 1)
    check_fitness(lambda m, b: 0.5, model, [])
    check_fitness(lambda m, b: {"accuracy": 0.5, "kl": 0.1}, model, [])
    counter = itertools.count()
    for broken, sentence in [
        (lambda m, b: float("nan"), "expected a finite fitness, got fitness = nan"),
        (lambda m, b: "good", "to return a float or a dict of floats, got 'good'"),
        (lambda m, b: {}, "a dict of floats, got an empty dict"),
        (lambda m, b: {"macs": 1.0}, "'macs' is the name of a cost"),
        (lambda m, b: float(next(counter)), "the same model and batches gave"),
        (lambda m, b: float(m.eval() is None), "training mode"),
        (changes_weights, "changed weight of the model"),
        (lambda m, b: None, "to return a float or a dict of floats, got None"),
        (lambda m, b: float(b[0].inputs[0].zero_().sum()), "changes input 0 of its batches in place"),
        (lambda m, b: float(os.chdir("/") is None), "changed the current directory"),
        (lambda m: 0.5, "the fitness to keep its contract, but it raised TypeError"),
        (lambda m, b: m.no_such_layer, "it raised AttributeError: .*no_such_layer"),
    ]:
        with pytest.raises(AssertionError, match=sentence):
            check_fitness(broken, model, [Batch((torch.ones(1, 2),))])


@pytest.mark.parametrize("value", [1, True, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.ones(1), "1", [1]])
def test_a_fitness_is_checked_by_the_rule_of_a_search(value):
    try:
        taken = checked_values({"score": value}, "fitness")
    except PluginError as error:
        with pytest.raises(AssertionError, match=re.escape(str(error))):
            check_fitness(lambda m, b: {"score": value}, torch.nn.Linear(2, 1), [])
    else:
        assert taken == {"score": pytest.approx(float(value))}
        check_fitness(lambda m, b: {"score": value}, torch.nn.Linear(2, 1), [])
