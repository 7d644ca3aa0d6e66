"""How far damages add up, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from autoprune.core.space import Candidate
from autoprune.plan.additivity import additivity, additivity_summary
from autoprune.plan.damages import probes
from autoprune.testing import synthetic_problem

SYNTHETIC = synthetic_problem(units=2, levels=3)
PROBLEM = SYNTHETIC.problem
PROBES = {(0, 0): 0.5, (1, 0): 0.75, (2, 0): 1.5, (0, 1): 0.5, (0, 2): 2.5}  # damages 0.25, 1, 0, 2 beyond dense


def told(damages_by_levels):
    """Evaluations whose distortion is what is given."""
    evaluations = [SYNTHETIC.evaluate(Candidate(levels)) for levels in damages_by_levels]
    name = PROBLEM.distortion
    return [replace(e, values={**e.values, name: damages_by_levels[e.candidate.levels]}) for e in evaluations]


def test_a_joint_network_is_held_against_the_sum_of_its_single_units():
    (row,) = additivity(PROBLEM, told({**PROBES, (2, 2): 6.5}))
    assert (row.candidate, row.predicted, row.measured) == (Candidate((2, 2)), 3.0, 6.0)
    assert (row.gap, row.ratio) == (3.0, 2.0)


def test_networks_that_change_one_unit_are_predicted_from_themselves_and_left_out():
    assert additivity(PROBLEM, told(PROBES)) == []


@pytest.mark.parametrize("interaction", [0.0, 0.5])
def test_where_damages_add_up_every_ratio_is_one(interaction):
    synthetic = synthetic_problem(units=4, levels=4, interaction=interaction)
    joint = [(1, 2, 3, 0), (3, 3, 3, 3), (0, 0, 2, 1)]
    rows = additivity(
        synthetic.problem, [synthetic.evaluate(Candidate(x)) for x in [*probes(synthetic.problem), *joint]]
    )
    assert [row.candidate.levels for row in rows] == joint
    exact = [row.ratio == pytest.approx(1.0) for row in rows]
    assert all(exact) == (interaction == 0)


def test_nothing_predicted_has_no_ratio():
    (row,) = additivity(PROBLEM, told({(0, 0): 0.5, (1, 0): 0.5, (0, 1): 0.5, (1, 1): 0.6}))
    assert math.isnan(row.ratio)
    assert row.gap == pytest.approx(0.1)
    assert additivity_summary([row]).startswith("no network that changes several units can be compared")


def test_without_the_reference_or_without_probes_there_are_no_rows():
    assert additivity(PROBLEM, told({(2, 2): 6.5, (1, 0): 1.0, (0, 1): 1.0})) == []
    assert additivity(PROBLEM, told({(0, 0): 0.5, (2, 2): 6.5})) == []
    assert additivity(PROBLEM, []) == []


def test_what_failed_is_left_out():
    failed = replace(SYNTHETIC.evaluate(Candidate((1, 1))), values={}, status="failed", cause="no")
    assert additivity(PROBLEM, [*told(PROBES), failed]) == []


def test_the_summary_has_the_median_and_the_ratio_furthest_from_one_in_either_direction():
    rows = additivity(PROBLEM, told({**PROBES, (2, 2): 3.5, (1, 2): 0.5 + 2.25 / 4, (2, 1): 2.5}))  # 1, 1/4, 2
    assert additivity_summary(rows) == "measured over predicted damage of 3 networks: median 1.00, furthest from 1 0.25"


def test_between_probes_damage_follows_the_shape_of_uniform_networks():
    synthetic = synthetic_problem(units=4, levels=9, interaction=0.0)
    ladder = [(level,) * 4 for level in range(9)]
    few = [*probes(synthetic.problem, 1), *ladder, (4, 2, 0, 6)]
    rows = additivity(synthetic.problem, [synthetic.evaluate(Candidate(levels)) for levels in few])
    assert [row.ratio for row in rows] == pytest.approx([1.0] * len(rows))  # all units grow by a square law here
    assert len(rows) == 9
