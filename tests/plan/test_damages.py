from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.plan.damages import damage_name, damage_table, probes, reference
from autoprune.testing import synthetic_problem


def answers(synthetic, rows):
    return [synthetic.evaluate(Candidate(row)) for row in rows]


def test_probes_are_dense_and_then_one_unit_and_one_level_each():
    problem = synthetic_problem(units=3, levels=4).problem
    rows = probes(problem)
    assert rows[0] == (0, 0, 0)
    assert sorted(rows[1:]) == sorted(tuple(k if v == u else 0 for v in range(3)) for u in range(3) for k in (1, 2, 3))


def test_every_unit_is_probed_once_before_any_is_probed_twice():
    problem = synthetic_problem(units=4, levels=5).problem
    rows = np.array(probes(problem)[1:])
    assert [row.argmax() for row in rows] == [0, 1, 2, 3] * 4
    assert rows[:4].max(axis=1).tolist() == [4] * 4


@pytest.mark.parametrize(("cap", "levels"), [(1, {9}), (2, {1, 9}), (3, {1, 5, 9}), (99, set(range(1, 10)))])
def test_a_cap_spreads_the_probed_levels_and_keeps_the_smallest(cap, levels):
    problem = synthetic_problem(units=2, levels=10).problem
    rows = probes(problem, cap)[1:]
    assert {row[0] for row in rows if row[0]} == levels
    assert len(rows) == 2 * len(levels)


def test_the_table_holds_each_probes_damage():
    synthetic = synthetic_problem(units=4, levels=5, interaction=0.0)
    table = damage_table(synthetic.problem, answers(synthetic, probes(synthetic.problem)))
    removed = np.arange(5) / 5
    assert table == pytest.approx(synthetic.weights[:, None] * removed**2)


def test_without_a_distortion_damage_is_the_loss_above_dense():
    synthetic = synthetic_problem(units=2, levels=3)
    problem = replace(synthetic.problem, distortion=None)
    table = damage_table(problem, answers(synthetic, probes(problem)))
    accuracy = synthetic.evaluate(Candidate((2, 0))).values["accuracy"]
    assert table[0, 2] == pytest.approx(1.0 - accuracy)


def test_other_evaluations_are_left_aside():
    synthetic = synthetic_problem(units=3, levels=3)
    rows = probes(synthetic.problem)
    plain = damage_table(synthetic.problem, answers(synthetic, rows))
    more = damage_table(synthetic.problem, answers(synthetic, [(1, 1, 0), *rows, (2, 2, 2)]))
    assert (plain == more).all()


def test_a_failed_or_nan_probe_closes_its_level_only():
    synthetic = synthetic_problem(units=2, levels=4)
    evaluations = answers(synthetic, probes(synthetic.problem))
    levels = [e.candidate.levels for e in evaluations]
    evaluations[levels.index((2, 0))] = Evaluation(Candidate((2, 0)), status="failed", cause="a test")
    broken = evaluations[levels.index((0, 3))]
    evaluations[levels.index((0, 3))] = replace(broken, values={**broken.values, "kl": float("nan")})
    table = damage_table(synthetic.problem, evaluations)
    assert np.argwhere(np.isinf(table)).tolist() == [[0, 2], [1, 3]]


def test_levels_between_probes_are_interpolated_and_beyond_them_closed():
    synthetic = synthetic_problem(units=1, levels=5)
    table = damage_table(synthetic.problem, answers(synthetic, [(0,), (3,)]))
    third = synthetic.kl((3,)) / 3
    assert table[0, :4] == pytest.approx([0, third, 2 * third, 3 * third])
    assert table[0, 4] == np.inf


def test_damage_is_never_negative_and_never_falls_when_less_is_kept():
    synthetic = synthetic_problem(units=1, levels=5)
    values = [0.2, 0.1, 0.5, 0.3, 0.6]  # dense is 0.2 above zero: noise
    told = [replace(synthetic.evaluate(Candidate((k,))), values={"accuracy": 1.0, "macs": 1.0, "kl": v})
            for k, v in enumerate(values)]  # fmt: skip
    assert damage_table(synthetic.problem, told)[0] == pytest.approx([0, 0, 0.3, 0.3, 0.4])


def test_a_dense_network_never_measured_has_no_distortion():
    synthetic = synthetic_problem(units=1, levels=3)
    table = damage_table(synthetic.problem, answers(synthetic, [(1,), (2,)]))
    assert table[0].tolist() == [0.0, synthetic.kl((1,)), synthetic.kl((2,))]


def test_nothing_measured_is_a_table_without_an_allowed_level():
    problem = replace(synthetic_problem(units=2, levels=3).problem, distortion=None)
    assert np.isinf(damage_table(problem, [])).all()


def test_with_a_budget_units_are_changed_in_a_network_that_leaves_room():
    synthetic = synthetic_problem(units=6, levels=6, budget=0.5)
    start = reference(synthetic.problem)
    assert start[0] > 0
    rows = probes(synthetic.problem)
    assert rows[0] == start
    assert synthetic.problem.feasible(np.array(rows)).all()
    assert len(rows) == 1 + 6 * 5
    table = damage_table(synthetic.problem, answers(synthetic, rows))
    assert (table[:, 0] == 0).all()
    assert np.isfinite(table).all()


def test_a_budget_at_the_smallest_network_leaves_that_one():
    problem = synthetic_problem(units=3, levels=4).problem
    tight = replace(problem, bounds=(Bound("macs", "<=", problem.reach()["macs"][0]),))
    assert probes(tight) == [(3, 3, 3)]


def test_a_problem_with_costs_alone_has_nothing_to_plan_by():
    problem = replace(synthetic_problem().problem, objectives=(Objective("macs", "min"),), distortion=None)
    with pytest.raises(ConfigError, match=r"expected an objective besides the costs \['macs', 'params'\]"):
        damage_name(problem)


def test_an_answer_without_the_named_distortion_is_an_error():
    synthetic = synthetic_problem(units=1, levels=2)
    told = Evaluation(Candidate((1,)), {"accuracy": 0.5, "macs": 2.0})
    with pytest.raises(ConfigError, match=r"expected every evaluation to hold 'kl'.*got \['accuracy', 'macs'\]"):
        damage_table(synthetic.problem, [told])
