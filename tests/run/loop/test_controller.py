"""The loop: budgets, repeats, failures, and replay from any point the journal can end at."""

from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from quick_searchers import QUICK

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound
from autoprune.core.problem import Profile
from autoprune.core.space import Candidate
from autoprune.errors import JournalMismatch, RunFailed, SpaceError
from autoprune.run.executors.serial import SerialEvaluator
from autoprune.run.loop.controller import FIRST_FAILURES, REPEATS, Controller
from autoprune.searchers import SEARCHERS, make_searcher
from autoprune.testing import synthetic_problem


def profiled():
    """A synthetic problem with profiles, which some searchers need."""
    plain = synthetic_problem(units=4, levels=4, seed=1)
    pairs = zip(plain.problem.space.units, plain.problem.space.levels, strict=True)
    profiles = {unit: Profile(np.arange(1.0, counts[0] + 1), (counts[0], 1)) for unit, counts in pairs}
    return replace(plain, problem=replace(plain.problem, profiles=profiles))


SYNTHETIC = profiled()
PRUNED = {"over": "sensitivities", "budget": 0.5, "sampler": "RandomSampler", "pruner": "HyperbandPruner"}


class Shuffled:
    """Slots that answer in a fixed but mixed order; `scored` is what was evaluated."""

    def __init__(self, score, slots=4):
        self.score = score
        self.slots = slots
        self.flying = []
        self.scored = []
        self.rng = np.random.default_rng(slots)

    def submit(self, candidate):
        assert len(self.flying) < self.slots
        assert candidate not in self.flying
        self.flying.append(candidate)
        self.scored.append(candidate)

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
    evaluation = SYNTHETIC.evaluate(candidate)
    parts = {"accuracy": (evaluation.values["accuracy"],) * round(32 * candidate.fidelity)}  # racing reads them
    return replace(evaluation, seconds=0.0, parts=parts)


def controller(searcher, budget, records, evaluator=None, problem=SYNTHETIC.problem, deterministic=False):
    return Controller(
        problem, searcher, evaluator or SerialEvaluator(score), budget, records.append, deterministic=deterministic
    )


def values(evaluations):
    return [(e.candidate, dict(e.values), e.status) for e in evaluations]


@pytest.mark.parametrize(
    ("name", "options"), [*((name, QUICK.get(name, {})) for name in sorted(SEARCHERS)), ("optuna", PRUNED)], ids=str
)
def test_a_run_cut_after_any_record_ends_like_the_whole_one(name, options):
    records = []
    budget = 6 if hasattr(make_searcher(name, SYNTHETIC.problem, **options), "fidelities") else 30  # shares add up
    whole = controller(make_searcher(name, SYNTHETIC.problem, seed=3, **options), budget, records)
    ended = whole.run()
    for cut in range(0, len(records) + 1, 7):
        kept = records[:cut]
        again = controller(make_searcher(name, SYNTHETIC.problem, seed=3, **options), budget, kept)
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


# in order


@pytest.mark.parametrize("name", sorted(SEARCHERS))
def test_an_ordered_run_sees_the_same_whatever_the_slots_and_the_order_of_answers(name):
    runs = []
    for evaluator in (SerialEvaluator(score), Shuffled(score, 3), Shuffled(score, 7), Shuffled(score, 70)):
        made = make_searcher(name, SYNTHETIC.problem, seed=3, **QUICK.get(name, {}))
        run = controller(made, 20 if hasattr(made, "fidelities") else 40, [], evaluator, deterministic=True)
        run.run()
        runs.append(values(run.told))
    assert runs[0] == runs[1] == runs[2] == runs[3]


def test_without_order_the_sequence_depends_on_who_answers_first():
    runs = []
    for slots in (1, 7):
        run = controller(make_searcher("random", SYNTHETIC.problem, seed=3), 60, [], Shuffled(score, slots))
        run.run()
        runs.append(values(run.told))
    assert runs[0] != runs[1]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("name", ["auto", "evolution", "random"])
def test_a_run_on_many_slots_cut_after_any_record_spends_the_same_budget(name, deterministic):
    records = []
    whole = controller(
        make_searcher(name, SYNTHETIC.problem, seed=3), 40, records, Shuffled(score, 3), deterministic=deterministic
    )
    whole.run()
    for cut in range(0, len(records) + 1, 9):
        kept = records[:cut]
        again = controller(
            make_searcher(name, SYNTHETIC.problem, seed=3),
            40,
            kept,
            evaluator := Shuffled(score, 5),
            deterministic=deterministic,
        )
        again.replay(list(kept))
        again.run()
        assert again.done == 40
        known = {key(record) for record in records[:cut] if "evaluation" in record}
        assert not known & {candidate.levels for candidate in evaluator.scored}
        assert len(known | {candidate.levels for candidate in evaluator.scored}) == 40
        if deterministic:
            assert values(again.told) == values(whole.told)


def key(record):
    return tuple(record["evaluation"]["levels"])


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_network_that_is_being_evaluated_is_not_evaluated_twice(deterministic):
    a, b, c = Candidate((0, 0, 0, 0)), Candidate((1, 0, 0, 0)), Candidate((2, 0, 0, 0))
    searcher = Scripted([a, a, b, a, c, b, b, c])
    evaluator = Shuffled(score, 8)
    run = controller(searcher, 8, [], evaluator, deterministic=deterministic)
    run.run()
    assert evaluator.scored == [a, b, c]
    assert sorted(e.candidate for e in searcher.told) == sorted([a, a, b, a, c, b, b, c])
    assert not deterministic or [e.candidate for e in searcher.told] == [a, a, b, a, c, b, b, c]
    assert run.done == 3


@pytest.mark.parametrize("budget", [1, 2, 31, 32, 33])
@pytest.mark.parametrize("slots", [1, 7, 40])
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_budget_is_spent_to_the_last_and_never_exceeded(budget, slots, deterministic):
    evaluator = Shuffled(score, slots)
    run = controller(make_searcher("random", SYNTHETIC.problem), budget, [], evaluator, deterministic=deterministic)
    assert run.run() == "all evaluations are spent"
    assert len(evaluator.scored) == run.done == budget


def test_answers_of_before_are_used_when_their_candidates_are_asked_for_and_then_cost_nothing_but_budget():
    records = []
    controller(make_searcher("random", SYNTHETIC.problem, seed=3), 30, records).run()
    answers = [{"kind": "answer", "evaluation": r["evaluation"]} for r in records if r["kind"] == "tell"]
    evaluator = Shuffled(score, 1)
    again = controller(make_searcher("random", SYNTHETIC.problem, seed=3), 40, [], evaluator)
    again.replay(answers)
    again.run()
    assert again.done == 40
    assert len(evaluator.scored) == 10


def test_an_answer_of_before_outside_the_bounds_of_now_is_infeasible_and_its_costs_are_those_of_now():
    problem = SYNTHETIC.problem
    stale = replace(score(problem.space.smallest), values={**score(problem.space.smallest).values, "macs": -1.0})
    answers = [{"kind": "answer", "evaluation": e.to_json()} for e in (score(problem.space.dense), stale)]
    least, dense = problem.reach()["macs"]
    bounded = replace(problem, bounds=(Bound("macs", "<=", (least + dense) / 2),))
    run = controller(Scripted([problem.space.dense, problem.space.smallest]), 5, [], Shuffled(score), problem=bounded)
    run.replay(answers)
    run.run()
    assert [e.status for e in run.told] == ["infeasible", "ok"]
    assert run.told[1].values["macs"] == least


@pytest.mark.parametrize("deterministic", [False, True])
def test_progress_counts_evaluations_one_by_one_and_neither_repeats_nor_what_is_infeasible(deterministic):
    problem = SYNTHETIC.problem
    bounded = replace(problem, bounds=(Bound("macs", "<=", problem.reach()["macs"][1] - 1),))  # all but dense
    fresh = [Candidate((level, other, 1, 1)) for level in range(4) for other in range(4)]
    steps = []
    asked = [c for pair in zip(fresh, [problem.space.dense, *fresh], strict=False) for c in pair]
    run = controller(Scripted(asked), 40, [], Shuffled(score, 7), bounded, deterministic)
    run.on_step = lambda done, evaluation: steps.append(done)
    run.run()
    assert steps == list(range(1, 17))


LOW, HALF, FULL = (Candidate((1, 2, 0, 3), fidelity) for fidelity in (0.25, 0.5, 1.0))


class Images:
    """A hundred images per network, of which a candidate is scored on those it asks for; `seen` counts them."""

    slots = 1

    def __init__(self, averages=True):
        self.averages = averages
        self.seen = 0
        self.asked = []

    def submit(self, candidate):
        self.asked.append(candidate)

    def collect(self):
        candidate = self.asked[-1]
        images = np.random.default_rng(sum(candidate.levels)).random(100)
        images = images[round(candidate.since * 100) : round(candidate.fidelity * 100)]
        self.seen += len(images)
        return Evaluation(candidate, {"accuracy": images.mean()}, examples=len(images) if self.averages else 0)


def mean_of(candidate):
    return np.random.default_rng(sum(candidate.levels)).random(100)[: round(candidate.fidelity * 100)].mean()


def test_a_network_scored_on_more_examples_is_scored_on_the_others_only():
    searcher, images = Scripted([LOW, HALF, FULL]), Images()
    run = controller(searcher, 5, [], images)
    run.run()
    assert images.seen == 100
    assert [(c.since, c.fidelity) for c in images.asked] == [(0.0, 0.25), (0.25, 0.5), (0.5, 1.0)]
    assert [e.candidate for e in searcher.told] == [LOW, HALF, FULL]
    assert [e.values["accuracy"] for e in searcher.told] == pytest.approx([mean_of(c) for c in (LOW, HALF, FULL)])
    assert [e.examples for e in searcher.told] == [25, 50, 100]
    assert run.done == 1


def test_values_that_are_no_means_are_measured_anew():
    searcher, images = Scripted([LOW, HALF, FULL]), Images(averages=False)
    controller(searcher, 5, [], images).run()
    assert images.seen == 25 + 50 + 100
    assert [e.values["accuracy"] for e in searcher.told] == pytest.approx([mean_of(c) for c in (LOW, HALF, FULL)])


def test_a_part_that_failed_is_not_built_upon():
    def failing(candidate):
        bad = Evaluation(candidate, {}, "failed", "a test")
        return bad if candidate.fidelity == 0.5 else replace(SYNTHETIC.evaluate(candidate), examples=10)

    searcher = Scripted([LOW, HALF, FULL])
    controller(searcher, 5, [], SerialEvaluator(failing)).run()
    assert [e.status for e in searcher.told] == ["ok", "failed", "ok"]
    assert [e.candidate for e in searcher.told] == [LOW, HALF, FULL]
    assert searcher.told[-1].examples == 20  # the quarter and the rest


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_the_budget_counts_shares_of_the_selection_set(budget):
    quarters = [Candidate((a, b, 0, 0), 0.25) for a in range(4) for b in range(4)]
    run = controller(Scripted(quarters), budget, [], Images())
    assert run.run() == "all evaluations are spent"
    assert len(run.told) == 4 * budget
    assert run.done == budget


@pytest.mark.parametrize("cut", range(8))
def test_fidelities_replay_from_any_point(cut):
    asked = [LOW, replace(LOW, levels=(0, 1, 0, 0)), HALF, FULL]
    records = []
    whole = controller(Scripted(asked), 5, records, Images())
    whole.run()
    kept, images = records[:cut], Images()
    again = controller(Scripted(asked), 5, kept, images)
    again.replay(list(kept))
    again.run()
    assert values(again.told) == values(whole.told)
    assert kept == records


def test_another_fidelity_is_a_mismatch():
    records = []
    controller(Scripted([LOW]), 5, records, Images()).run()
    with pytest.raises(JournalMismatch, match=r"asked for .* at fidelities \[0.25\], now it asks for .* \[0.5\]"):
        controller(Scripted([HALF]), 5, [], Images()).replay(records)


def test_more_steps_of_training_replace_what_was_measured_after_fewer_and_cost_the_difference():
    asked = [Candidate((1, 1, 1, 1), 0.25), Candidate((1, 1, 1, 1), 1.0)]
    scored = []

    def trained(candidate):
        scored.append(candidate.since)
        values = {"accuracy": candidate.fidelity}
        return Evaluation(candidate, values, steps=round(100 * candidate.fidelity))

    records = []
    running = controller(Scripted(asked), 1, records, SerialEvaluator(trained))
    running.run()
    assert scored == [0.0, 0.25]
    assert [(e.candidate, e.values["accuracy"], e.steps) for e in running.told] == [
        (asked[0], 0.25, 25),
        (asked[1], 1.0, 100),
    ]
    assert running.done == 1
    again = controller(Scripted(asked), 1, [], SerialEvaluator(trained))
    again.replay(records[:2])
    again.run()
    assert scored == [0.0, 0.25, 0.25]
    assert again.told == running.told
