"""Tables of damages from little and from much, where the truth is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.plan.damage_model import DamageModel
from autoprune.plan.damages import probes
from autoprune.plan.ladder import ladder
from autoprune.plan.repair import stratified
from autoprune.testing import synthetic_problem

SHARES = np.arange(6) / 6  # removed, at the six levels of synthetic problems


def told(synthetic, rows):
    model = DamageModel(synthetic.problem)
    model.tell([synthetic.evaluate(Candidate(tuple(map(int, row)))) for row in rows])
    return model


def test_knowing_nothing_all_units_are_alike_and_grow_by_a_square_law():
    table = DamageModel(synthetic_problem(units=3, levels=6).problem).table()
    assert (table == table[0]).all()
    np.testing.assert_allclose(table[0] / table[0, 5], (SHARES / SHARES[5]) ** 2)


def test_the_ladder_alone_gives_rows_that_add_up_to_it():
    synthetic = synthetic_problem(units=7, levels=6, interaction=2.0)
    rungs = ladder(synthetic.problem, 12)
    table = told(synthetic, rungs).table()
    for levels in rungs:
        assert table[np.arange(7), levels].sum() == pytest.approx(synthetic.kl(levels))


def test_one_probe_a_unit_gives_the_whole_table_where_damages_add_up():
    synthetic = synthetic_problem(units=7, levels=6, interaction=0.0)
    table = told(synthetic, [*ladder(synthetic.problem, 12), *probes(synthetic.problem, 1)]).table()
    np.testing.assert_allclose(table, synthetic.weights[:, None] * SHARES**2, rtol=1e-6)


def test_units_not_probed_yet_share_what_the_probed_ones_leave():
    synthetic = synthetic_problem(units=4, levels=6, interaction=0.0)
    smallest = synthetic.problem.space.smallest.levels
    table = told(synthetic, [*ladder(synthetic.problem, 12), (5, 0, 0, 0), (0, 5, 0, 0)]).table()
    np.testing.assert_allclose(table[:2, 5], synthetic.weights[:2] * SHARES[5] ** 2)
    assert table[2, 5] == table[3, 5]
    assert table[:, 5].sum() == pytest.approx(synthetic.kl(smallest))


def test_networks_that_do_worse_than_their_sum_raise_the_rows_of_the_units_they_have_in_common():
    synthetic = synthetic_problem(units=8, levels=6, interaction=0.0)
    synthetic = replace(synthetic, weights=np.ones(8), pairs=np.array([20.0, *[0.0] * 6]))  # units 0 and 1 together
    rng = np.random.default_rng(0)
    known = [*ladder(synthetic.problem, 12), *probes(synthetic.problem, 1)]
    before = told(synthetic, known).table()
    after = told(synthetic, [*known, *stratified(synthetic.problem, rng, 60)]).table()
    grown = after[:, 5] / before[:, 5]
    assert grown[:2].min() > 1.5 * grown[2:].max()


def test_a_level_whose_probe_failed_is_not_allowed_and_other_failures_are_left_aside():
    synthetic = synthetic_problem(units=4, levels=6)
    rows = [*ladder(synthetic.problem, 12), *probes(synthetic.problem, 1)]
    model = told(synthetic, rows)
    before = model.table()
    model.tell(
        [Evaluation(Candidate((0, 3, 0, 0)), status="failed"), Evaluation(Candidate((1, 3, 2, 1)), {"kl": math.nan})]
    )
    after = model.table()
    assert math.isinf(after[1, 3])
    after[1, 3] = before[1, 3]
    np.testing.assert_allclose(after, before)


def test_all_answers_may_have_failed():
    synthetic = synthetic_problem(units=3, levels=4)
    model = DamageModel(synthetic.problem)
    model.tell([Evaluation(Candidate(levels), status="failed") for levels in [(0, 0, 0), (3, 3, 3), (1, 2, 3)]])
    assert np.isfinite(model.table()).all()


def test_bounds_that_forbid_the_dense_network_leave_sizes_to_probes_of_a_narrower_one():
    synthetic = synthetic_problem(units=6, levels=6, interaction=0.0, budget=0.5)
    rows = [*ladder(synthetic.problem, 12), *probes(synthetic.problem, 1)]
    assert all(max(row) > 0 for row in rows)
    table = told(synthetic, rows).table()
    order = np.argsort(synthetic.weights)
    assert (np.argsort(table[:, 5]) == order).all()


def test_damage_may_be_a_loss_of_accuracy_below_the_dense_networks():
    synthetic = synthetic_problem(units=5, levels=6, interaction=0.0)
    synthetic = replace(synthetic, problem=replace(synthetic.problem, distortion=None))
    table = told(synthetic, [*ladder(synthetic.problem, 12), *probes(synthetic.problem, 1)]).table()
    alone = [0.9 * (1 - math.exp(-w * SHARES[5] ** 2)) for w in synthetic.weights]
    np.testing.assert_allclose(table[:, 5], alone, rtol=0.3)
    assert (table[:, 0] == 0).all()
