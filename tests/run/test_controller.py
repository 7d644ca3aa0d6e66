"""The loop: budgets, repeats, failures, and replay from any point the journal can end at."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound
from autoprune.core.profile import Profile
from autoprune.core.space import Candidate
from autoprune.errors import JournalMismatch, RunFailed, SpaceError
from autoprune.run.controller import FIRST_FAILURES, REPEATS, Controller
from autoprune.run.serial import SerialEvaluator
from autoprune.search import SEARCHERS, make_searcher
from autoprune.testing import synthetic_problem

SYNTHETIC = synthetic_problem(units=4, levels=4, seed=1)
for unit, counts in zip(SYNTHETIC.problem.space.units, SYNTHETIC.problem.space.levels, strict=True):
    SYNTHETIC.problem.profiles[unit] = Profile(
        np.arange(1.0, counts[0] + 1), (counts[0], 1)
    )  # some searchers need them


class Shuffled:
    """Four slots that answer in a fixed but mixed order."""

    slots = 4

    def __init__(self, score):
        self.score = score
        self.flying = []
        self.rng = np.random.default_rng(0)

    def submit(self, candidate):
        self.flying.append(candidate)

    def collect(self):
        return self.score(self.flying.pop(int(self.rng.integers(len(self.flying)))))


class Scripted:
    """Asks for given candidates."""

    def __init__(self, candidates):
        self.queue = deque(candidates)
        self.told = []

    def ask(self, n):
        return [self.queue.popleft() for _ in range(min(n, len(self.queue)))]

    def tell(self, evaluations):
        self.told += evaluations


def score(candidate):
    return replace(SYNTHETIC.evaluate(candidate), seconds=0.0)


def controller(searcher, budget, records, evaluator=None, problem=SYNTHETIC.problem):
    return Controller(problem, searcher, evaluator or SerialEvaluator(score), budget, records.append)


def values(evaluations):
    return [(e.candidate, dict(e.values), e.status) for e in evaluations]


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_a_run_cut_after_any_record_ends_like_the_whole_one(name):
    records = []
    whole = controller(make_searcher(name, SYNTHETIC.problem, seed=3), 30, records)
    ended = whole.run()
    for cut in range(0, len(records) + 1, 7):
        kept = records[:cut]
        again = controller(make_searcher(name, SYNTHETIC.problem, seed=3), 30, kept)
        again.replay(list(kept))
        assert again.run() == ended
        assert values(again.told) == values(whole.told)
        assert kept == records


@pytest.mark.parametrize("name", ["auto", "evolution", "optuna", "random"])
def test_answers_out_of_order_replay_exactly(name):
    records = []
    whole = controller(make_searcher(name, SYNTHETIC.problem, seed=3), 40, records, Shuffled(score))
    whole.run()
    again = controller(make_searcher(name, SYNTHETIC.problem, seed=3), 40, [], Shuffled(score))
    again.replay(records)
    assert values(again.told) == values(whole.told)
    assert again.done == 40


def test_a_searcher_that_asks_for_something_else_is_a_mismatch():
    records = []
    controller(make_searcher("random", SYNTHETIC.problem, seed=3), 10, records).run()
    other = controller(make_searcher("random", SYNTHETIC.problem, seed=4), 10, [])
    with pytest.raises(JournalMismatch, match=r"record \d+: the journal says the searcher asked for .* now it asks"):
        other.replay(records)


def test_the_budget_counts_networks_and_a_repeat_is_answered_from_memory():
    a, b = Candidate((0, 0, 0, 0)), Candidate((1, 0, 0, 0))
    scored = []

    def counting(candidate):
        scored.append(candidate)
        return score(candidate)

    searcher = Scripted([a, a, a, b, a])
    run = controller(searcher, 5, [], SerialEvaluator(counting))
    assert run.run() == "the searcher has nothing more to propose"
    assert scored == [a, b]
    assert [e.candidate for e in searcher.told] == [a, a, a, b, a]
    assert run.done == 2


def test_a_searcher_that_only_repeats_itself_is_stopped():
    run = controller(Scripted([Candidate((0, 0, 0, 0))] * (REPEATS + 5)), 5, [])
    assert run.run() == f"the last {REPEATS} proposals were known or outside the bounds"


def test_a_proposal_outside_the_bounds_is_told_infeasible_and_never_scored():
    least, dense = SYNTHETIC.problem.reach()["macs"]
    problem = replace(SYNTHETIC.problem, bounds=(Bound("macs", "<=", (least + dense) / 2),))
    searcher = Scripted([problem.space.dense, problem.space.smallest])
    run = controller(searcher, 5, [], problem=problem)
    run.run()
    assert [e.status for e in searcher.told] == ["infeasible", "ok"]
    assert run.done == 1


def test_a_proposal_outside_the_space_is_an_error():
    with pytest.raises(SpaceError, match="expected 4 level indices"):
        controller(Scripted([Candidate((9, 0, 0, 0))]), 5, []).run()


def failing(candidate):
    return Evaluation(candidate, {}, "failed", "ValueError: bad day")


def test_when_the_first_evaluations_all_fail_the_run_stops_and_says_why():
    records = []
    run = controller(make_searcher("random", SYNTHETIC.problem), 50, records, SerialEvaluator(failing))
    with pytest.raises(RunFailed, match=f"the first {FIRST_FAILURES} evaluations all failed: ValueError: bad day"):
        run.run()
    assert sum(record["kind"] == "tell" for record in records) == FIRST_FAILURES


def test_failures_after_a_success_are_recorded_and_the_run_goes_on():
    def sometimes(candidate):
        return score(candidate) if candidate == SYNTHETIC.problem.space.dense else failing(candidate)

    run = controller(make_searcher("random", SYNTHETIC.problem), 20, [], SerialEvaluator(sometimes))
    run.run()
    assert run.done == 20
    assert [e.status for e in run.told].count("failed") == 19


def test_a_fitness_without_an_objective_is_a_failed_evaluation():
    def blind(candidate):
        return Evaluation(candidate, {"other": 1.0})

    run = controller(Scripted([SYNTHETIC.problem.space.dense]), 2, [], SerialEvaluator(blind))
    with pytest.raises(RunFailed, match="the first 1 evaluations all failed: expected the fitness to report"):
        run.run()
    assert run.told[0].status == "failed"
