from __future__ import annotations

import math

import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import is_usable
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.searchers.common.proposals import Proposals
from autoprune.testing import synthetic_problem


@pytest.fixture
def synthetic():
    return synthetic_problem(units=2, levels=3)


def test_a_network_is_handed_out_once(synthetic):
    proposals = Proposals(synthetic.problem)
    assert proposals.add((0, 1))
    assert not proposals.add((0, 1))
    assert proposals.take(5) == [Candidate((0, 1))]
    assert proposals.waiting
    assert not proposals.add((0, 1))
    assert proposals.take(5) == []


def test_an_answer_ends_the_waiting_and_is_kept_once(synthetic):
    proposals = Proposals(synthetic.problem)
    proposals.add((0, 1))
    (candidate,) = proposals.take(1)
    answer = synthetic.evaluate(candidate)
    assert proposals.record([answer, answer]) == [answer]
    assert not proposals.waiting
    assert proposals.losses == {(0, 1): (-answer.values["accuracy"], answer.values["macs"])}


def test_what_was_measured_elsewhere_is_not_proposed_even_if_queued(synthetic):
    proposals = Proposals(synthetic.problem)
    proposals.add((0, 1))
    proposals.record([synthetic.evaluate(Candidate((0, 1))), synthetic.evaluate(Candidate((2, 2)))])
    assert proposals.take(5) == []
    assert not proposals.add((2, 2))


def test_what_remains_of_a_small_space_is_found_within_the_bounds():
    problem = synthetic_problem(units=3, levels=5, budget=0.6).problem
    proposals = Proposals(problem)
    proposals.add((4, 4, 4))
    rows = []
    while more := proposals.remaining(10):
        rows += more
    assert len(rows) == len(set(rows))
    assert (4, 4, 4) not in rows
    assert problem.feasible(rows).all()
    everything = [(a, b, c) for a in range(5) for b in range(5) for c in range(5)]
    assert len(rows) + 1 == problem.feasible(everything).sum()


def test_a_large_space_is_not_enumerated():
    assert Proposals(synthetic_problem(units=20).problem).remaining(1) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_count_as_failed(synthetic, value):
    candidate = Candidate((0, 0))
    assert is_usable(synthetic.problem, synthetic.evaluate(candidate))
    assert not is_usable(synthetic.problem, Evaluation(candidate, {"accuracy": 0.5, "macs": value}))
    assert not is_usable(synthetic.problem, Evaluation(candidate, {"accuracy": 0.5}))


@pytest.mark.parametrize("value", [0, -3, 2.5, "8", True, None])
def test_an_option_that_is_no_such_number_is_an_error(value):
    with pytest.raises(ConfigError, match="expected plans to be a whole number of at least 1, got"):
        at_least("plans", value, 1)


def test_an_option_that_no_memory_holds_is_an_error():
    with pytest.raises(ConfigError, match="expected population to be at most 1,000,000, got 1000000000"):
        at_least("population", 10**9, 2)
