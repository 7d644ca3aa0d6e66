"""Fronts against hand arithmetic and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front, hypervolume, nondominated
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, InfeasibleBudget

TOY = [(1, 5), (2, 3), (3, 4), (4, 1), (5, 5), (2, 3), (6, 2)]
OBJECTIVES = (Objective("accuracy", "max"), Objective("macs", "min"))
DENSE = {"macs": 100.0}


def evaluation(index, accuracy, macs, **others):
    return Evaluation(Candidate((index,), others.pop("fidelity", 1.0)), {"accuracy": accuracy, "macs": macs}, **others)


def front_of(*pairs):
    return Front.of([evaluation(index, *pair) for index, pair in enumerate(pairs)], OBJECTIVES, DENSE)


def values(front):
    return [(e.values["accuracy"], e.values["macs"]) for e in front]


FRONT = front_of((0.9, 100), (0.85, 60), (0.8, 40), (0.5, 10))

points = st.lists(st.tuples(*[st.integers(0, 5)] * 3), max_size=12)


@given(points)
def test_nondominated_is_what_comparing_every_pair_finds(rows):
    losses = np.array(rows, dtype=float).reshape(-1, 3)
    expected = [
        not any((a <= b).all() and ((a < b).any() or j < i) for j, a in enumerate(losses) if j != i)
        for i, b in enumerate(losses)
    ]
    assert nondominated(losses).tolist() == expected


def test_the_sorting_toy_keeps_one_of_equal_points():
    assert np.flatnonzero(nondominated(np.array(TOY))).tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("rows", "reference", "expected"),
    [
        ([(1, 4), (2, 2), (4, 1)], (5, 5), 11.0),
        (TOY, (7, 7), 28.0),
        ([(5, 5)], (5, 5), 0.0),
        ([(8, 1)], (5, 5), 0.0),
        ([(2,)], (5,), 3.0),
        ([(0, 0, 0), (0, 0, 0)], (1, 2, 3), 6.0),
        ([], (5, 5), 0.0),
    ],
)
def test_hypervolume_is_the_volume_by_hand(rows, reference, expected):
    assert hypervolume(np.array(rows), reference) == pytest.approx(expected, abs=1e-12)


@given(points)
def test_hypervolume_is_the_number_of_dominated_cells(rows):
    cells = [
        c
        for c in itertools.product(range(6), repeat=3)
        if any(all(x <= y for x, y in zip(r, c, strict=True)) for r in rows)
    ]
    assert hypervolume(np.array(rows, dtype=float), (6, 6, 6)) == pytest.approx(len(cells))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    with pytest.raises(ValueError, match="expected finite losses"):
        nondominated(np.array([[0.0, bad]]))
    with pytest.raises(ValueError, match="expected finite losses"):
        hypervolume(np.array([[0.0, bad]]), (1, 1))


def test_a_front_keeps_what_is_not_dominated_smallest_cost_first():
    front = front_of((0.5, 10), (0.9, 100), (0.8, 40), (0.8, 50), (0.4, 10))
    assert values(front) == [(0.5, 10), (0.8, 40), (0.9, 100)]
    assert len(front) == 3
    assert front[0].candidate == Candidate((0,))


def test_of_equal_values_the_lower_levels_stay_whatever_the_order():
    twins = [evaluation(1, 0.8, 40), evaluation(0, 0.8, 40), evaluation(2, 0.9, 60)]
    fronts = [Front.of(order, OBJECTIVES, DENSE) for order in itertools.permutations(twins)]
    assert all([e.candidate.levels for e in front] == [(0,), (2,)] for front in fronts)


def test_only_ok_evaluations_at_full_fidelity_count():
    better = [
        evaluation(1, 1.0, 1, fidelity=0.5),
        evaluation(2, 1.0, 1, status="infeasible"),
        Evaluation(Candidate((3,)), status="failed", cause="OutOfMemory"),
        Evaluation(Candidate((4,)), status="timeout", cause="60 s"),
    ]
    assert values(Front.of([*better, evaluation(0, 0.5, 10)], OBJECTIVES, DENSE)) == [(0.5, 10)]


def test_any_number_of_objectives_by_their_own_names():
    three = (*OBJECTIVES, Objective("energy", "min"))
    rows = [
        Evaluation(Candidate((i,)), dict(zip(("accuracy", "macs", "energy"), v, strict=True)))
        for i, v in enumerate([(0.9, 9, 9), (0.8, 9, 1), (0.8, 9, 2)])
    ]
    assert len(Front.of(rows, three, {})) == 2
    assert [e.values["accuracy"] for e in Front.of(rows, three[:1], {})] == [0.9]


def test_an_empty_front_is_a_front():
    empty = Front.of([], OBJECTIVES, DENSE)
    assert (len(empty), list(empty), empty.losses().shape, empty.hypervolume((0, 1))) == (0, [], (0, 2), 0.0)
    with pytest.raises(InfeasibleBudget, match="the front is empty"):
        empty.knee()
    with pytest.raises(InfeasibleBudget, match="'macs<=0.5': the front is empty"):
        empty.pick("macs<=0.5")


@pytest.mark.parametrize(
    ("text", "accuracy"),
    [
        ("macs<=0.6", 0.85),  # a share of 100
        ("macs<=0.599", 0.8),
        ("macs<=60", 0.85),
        ("macs=0.4", 0.8),
        ("macs<=1", 0.9),
        ("macs<=0.7,macs<=50", 0.8),
        ("macs>=0.5,macs<=0.7", 0.85),
    ],
)
def test_pick_takes_the_most_accurate_within_all_bounds_on_costs(text, accuracy):
    assert FRONT.pick(text).values["accuracy"] == accuracy


def test_pick_takes_the_cheapest_where_accuracy_is_bounded():
    assert FRONT.pick("accuracy>=0.8").values["macs"] == 40
    assert FRONT.pick("accuracy>=0.8,macs<=0.6").values["accuracy"] == 0.85  # all are bounded: the first objective


def test_pick_says_what_the_front_has_when_nothing_is_within():
    with pytest.raises(
        InfeasibleBudget,
        match=r"'macs<=0.05'; the nearest is row 1, .* with macs 10 \(0.1000 of dense\). "
        r"The front has 4 members with macs from 10 \(0.1000 of dense\) to 100",
    ):
        FRONT.pick("macs<=0.05")
    with pytest.raises(InfeasibleBudget, match=r"accuracy from 0.5 to 0.9"):
        FRONT.pick("accuracy>=0.95")


def test_pick_refuses_a_name_that_was_not_measured():
    with pytest.raises(ConfigError, match=r"expected a bound on one of \['accuracy', 'macs'\], got 'flops<=1'"):
        FRONT.pick("flops<=1")


def test_the_knee_is_the_member_farthest_below_the_chord():
    # scaled to (loss, cost): (0, 1), (1/8, 5/9), (2/8, 3/9), (1, 0); sums 1, .68, .58, 1
    assert FRONT.knee().values["accuracy"] == 0.8
    assert front_of((0.7, 5)).knee().values["accuracy"] == 0.7


def test_with_three_objectives_the_knee_is_nearest_to_the_ideal_point():
    objectives = tuple(Objective(name, "min") for name in "xyz")
    rows = [(0, 1, 1), (1, 0, 1), (1, 1, 0), (0.4, 0.4, 0.4)]
    found = [Evaluation(Candidate((i,)), dict(zip("xyz", row, strict=True))) for i, row in enumerate(rows)]
    assert Front.of(found, objectives, {}).knee().candidate.levels == (3,)


@pytest.mark.parametrize("limit", [2, 3, 5, 9, 20])
def test_thinning_keeps_both_ends_and_no_more_than_the_limit(limit):
    front = front_of(*[(i / 10, i * i) for i in range(10)])
    thin = front.thinned(limit)
    assert len(thin) == min(limit, 10)
    assert (values(thin)[0], values(thin)[-1]) == (values(front)[0], values(front)[-1])
    assert set(values(thin)) <= set(values(front))


def test_thinning_drops_the_member_that_adds_least():
    # scaled: (1, 0), (.5, .1), (.45, .15), (0, 1); of the middle ones (.45, .15) is nearly covered
    front = front_of((0.0, 0), (0.5, 10), (0.55, 95), (1.0, 100))
    assert values(front.thinned(3)) == [(0.0, 0), (0.5, 10), (1.0, 100)]


def test_thinning_an_empty_front_or_to_nothing_keeps_the_ends():
    assert len(front_of().thinned(3)) == 0
    assert values(FRONT.thinned(0)) == [(0.5, 10), (0.9, 100)]


def test_thinning_drops_spared_members_after_all_others():
    front = front_of((0.0, 0), (0.5, 10), (0.55, 95), (1.0, 100))
    spared = {member.candidate.levels for member in front if member.values["macs"] == 95}
    assert values(front.thinned(3, spared)) == [(0.0, 0), (0.55, 95), (1.0, 100)]
    assert values(front.thinned(2, spared)) == [(0.0, 0), (1.0, 100)]


def test_thinning_by_ratio_counts_small_losses_as_much_as_large_ones():
    objectives = Objective("kl", "min"), Objective("macs", "min")
    losses = [(4.0, 10), (3.6, 30), (0.4, 60), (0.2, 80), (0.1, 100)]
    found = [Evaluation(Candidate((i,)), dict(zip(("kl", "macs"), row, strict=True))) for i, row in enumerate(losses)]
    front = Front.of(found, objectives, {"macs": 100.0})
    kept = [[e.values["macs"] for e in front.thinned(4, by_ratio=by_ratio)] for by_ratio in (False, True)]
    assert kept == [[10, 30, 60, 100], [10, 60, 80, 100]]
