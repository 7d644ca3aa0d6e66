"""What ends a search early: worked out by hand, and on a search that would go on for longer."""

import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.loop.controller import Controller
from autoprune.run.loop.stopping import Stopping, seconds_used
from autoprune.run.session.job import Stop, parse_target
from autoprune.searchers import make_searcher
from autoprune.testing import synthetic_problem

OBJECTIVES = (Objective("accuracy", "max"), Objective("macs", "min"))


def told(*points):
    return [Evaluation(Candidate((i,)), {"accuracy": a, "macs": m}) for i, (a, m) in enumerate(points)]


def test_a_target_is_bounds_in_words():
    expected = (Bound("accuracy", ">=", 0.9), Bound("macs", "<=", 0.5))
    assert parse_target("accuracy>=0.9 at macs<=0.5") == parse_target("accuracy>=0.9, macs<=0.5") == expected
    with pytest.raises(ConfigError, match="expected a bound such as"):
        parse_target("accuracy at macs<=0.5")


def test_a_target_is_reached_by_one_network_within_all_of_its_bounds():
    stopping = Stopping(Stop(target=parse_target("accuracy>=0.9 at macs<=0.5")), OBJECTIVES, {"macs": 100})
    points = [(0.95, 60), (0.8, 40)]
    assert stopping.reason(told(*points)) == ""
    assert stopping.reason(told(*points, (0.9, 50))) == "a network reached the target accuracy>=0.9, macs<=0.5"


def test_a_target_on_nothing_that_is_measured_is_an_error():
    stopping = Stopping(Stop(target=parse_target("joules<=3")), OBJECTIVES, {"macs": 100})
    with pytest.raises(ConfigError, match="expected a bound on one of .'accuracy', 'macs'., got one on 'joules'"):
        stopping.reason(told((1, 1)))


def test_a_front_that_does_not_grow_stagnates():
    stopping = Stopping(Stop(stagnation=3), OBJECTIVES, {"macs": 100})
    points = [(0.5, 50), (0.9, 100), (0.1, 10)]
    assert stopping.reason(told(*points)) == ""
    points += [(0.6, 50)]  # dominates the first
    assert stopping.reason(told(*points)) == ""
    points += [(0.1, 50), (0.1, 60)]
    assert stopping.reason(told(*points)) == ""
    points += [(0.1, 70)]
    assert "has not grown by 0.1% over the last 3 evaluations" in stopping.reason(told(*points))


def test_failures_count_as_no_growth():
    stopping = Stopping(Stop(stagnation=2), OBJECTIVES, {"macs": 100})
    good = told((0.5, 50), (0.6, 60))
    assert stopping.reason(good) == ""
    assert stopping.reason([*good, *[Evaluation(Candidate((9,)), {}, "failed", "a test")] * 2]) != ""


def run(stop, budget=500):
    synthetic = synthetic_problem(units=6, levels=8, seed=1)
    problem = synthetic.problem
    stopping = Stopping(stop, problem.objectives, problem.costs.dense())
    searcher = make_searcher("random", problem)
    controller = Controller(
        problem, searcher, SerialEvaluator(synthetic.evaluate), budget, lambda record: None, stop=stopping.reason
    )
    return controller.run(), controller.done


def test_a_search_ends_when_its_seconds_are_over():
    ended, done = run(Stop(seconds=1e-9))
    assert ended == "1e-09 seconds are over"
    assert done <= 1


def test_a_search_ends_when_its_front_stagnates():
    ended, done = run(Stop(stagnation=30))
    assert "has not grown" in ended
    assert 30 <= done < 500


def test_without_a_stop_all_evaluations_are_spent():
    assert run(Stop(), budget=30) == ("all evaluations are spent", 30)


def told_record(level, seconds, worker="", kind="tell"):
    return {"kind": kind, "evaluation": Evaluation(Candidate((level,)), seconds=seconds, worker=worker).to_json()}


ASK = {"kind": "ask", "n": 1, "candidates": []}


@pytest.mark.parametrize(
    ("records", "seconds"),
    [
        ([], 0.0),
        ([ASK, told_record(0, 2.0), told_record(1, 3.0)], 5.0),
        ([ASK, told_record(0, 2.0), told_record(0, 2.0)], 2.0),  # answered at once the second time
        ([ASK, told_record(0, 2.0, "a"), told_record(1, 3.0, "b"), told_record(2, 2.5, "a")], 4.5),  # in parallel
        ([ASK, told_record(0, 2.0, kind="answer"), told_record(0, 2.0)], 2.0),
        ([told_record(0, 9.0, kind="answer"), ASK, told_record(0, 9.0), told_record(1, 2.0)], 2.0),  # a fork
        ([ASK, told_record(0, 2.0), {"kind": "end", "why": "", "seconds": 7.5}, told_record(1, 1.0)], 8.5),
        ([ASK, told_record(0, 2.0), {"kind": "end", "why": ""}, told_record(1, 1.0)], 3.0),  # of an earlier version
    ],
)
def test_the_seconds_that_a_search_has_used_are_in_its_journal(records, seconds):
    assert seconds_used(records) == seconds
    stopping = Stopping(Stop(seconds=5.0), OBJECTIVES, {"macs": 100}, seconds_used(records))
    assert bool(stopping.reason([])) == (seconds >= 5.0)
