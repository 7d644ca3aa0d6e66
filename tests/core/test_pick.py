"""Picks from a front: by bounds, by row, by name; what is best is found by brute force or read off by eye."""

import itertools

import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.pick import Choice
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, InfeasibleBudget

DENSE = {"macs": 1000.0, "params": 200.0}
OBJECTIVES = (Objective("select_kl", "min"), Objective("macs", "min"))
# accuracy, select_kl, macs, params: of the 14 members of a front, 13 have an accuracy of at least 0.97
VALUES = [(0.80, 2.0, 50, 20)] + [(0.97 + 0.002 * i, 1.0 - 0.05 * i, 100 + 60 * i, 30 + 10 * i) for i in range(13)]
NAMES = [f"{2 + i}-{2 + i}-8" for i in range(len(VALUES))]


def choice(values=VALUES, objectives=OBJECTIVES, names=NAMES, dense=DENSE):
    members = [
        Evaluation(Candidate((i,)), dict(zip(("accuracy", "select_kl", "macs", "params"), row, strict=True)))
        for i, row in enumerate(values)
    ]
    return Choice(members, objectives, dense, names)


def test_a_bound_on_a_measurement_alone_means_the_cheapest_that_meets_it():
    found = choice().pick("accuracy>=0.97")
    assert found.index == 1
    assert found.why == "cheapest by macs among 13 with accuracy >= 0.97"


def test_the_cheapest_is_by_the_first_cost_among_the_objectives():
    values = [(0.9, 1.0, 100, 90), (0.9, 0.9, 200, 50)]
    by_params = (Objective("select_kl", "min"), Objective("params", "min"), Objective("macs", "min"))
    assert choice(values, by_params, ()).pick("accuracy>=0.9").index == 1
    assert choice(values, OBJECTIVES, ()).pick("accuracy>=0.9").index == 0
    assert choice(values, OBJECTIVES[:1], ()).pick("accuracy>=0.9").index == 0  # no cost is one: the first there is


def test_a_bound_on_a_cost_alone_means_the_best_measurement():
    found = choice().pick("macs<=0.5")
    assert found.index == max(i for i, row in enumerate(VALUES) if row[2] <= 500)
    assert found.why == "best by select_kl among 8 with macs <= 500 (0.5 of dense)"
    assert choice().pick("params<=0.5,macs<=0.4").index == max(i for i, r in enumerate(VALUES) if r[2] <= 400)


@pytest.mark.parametrize("bounds", [*itertools.permutations(["accuracy>=0.975", "macs<=0.5", "params<=90"])])
def test_with_bounds_on_both_the_best_measurement_counts_in_any_order_of_the_bounds(bounds):
    inside = [i for i, (a, _, m, p) in enumerate(VALUES) if a >= 0.975 and m <= 500 and p <= 90]
    found = choice().pick(",".join(bounds))
    assert found.index == min(inside, key=lambda i: VALUES[i][1])
    assert f"among {len(inside)} with" in found.why


def test_a_share_in_a_column_of_its_own_is_a_bound_on_a_cost():
    values = [
        Evaluation(Candidate((i,)), {"macs": m, "macs_ratio": m / 1000, "kl": 1 / m}) for i, m in enumerate((1, 9))
    ]
    assert Choice(values, (Objective("kl", "min"),), DENSE).pick("macs_ratio<=0.5").index == 1


@pytest.mark.parametrize("text", ["3", "#3", " #3 "])
def test_a_number_is_a_row_counted_from_one(text):
    assert choice().pick(text).index == 2


def test_a_number_too_large_to_read_is_told():
    with pytest.raises(ConfigError, match="a row number such as '#3'"):
        choice().pick("#" + "9" * 5000)


def test_a_name_is_a_candidate():
    assert choice().pick("5-5-8").index == 3


def test_a_number_that_is_a_row_and_another_candidate_is_not_guessed():
    alone = choice(VALUES[:3], names=["8", "4", "2"])
    with pytest.raises(ConfigError, match="Write '#2' or '#3'"):
        alone.pick("2")
    assert (alone.pick("#2").index, alone.pick("8").index) == (1, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected bounds such as 'macs<=0.5'"),
        ("0", "expected a row from 1 to 14, got '0'"),
        ("#15", "expected a row from 1 to 14, got '#15'"),
        ("5-5-9", r"the name of a candidate, got '5-5-9' \(did you mean"),
        ("best", "expected bounds such as"),
        ("acuracy>=0.9", r"got 'acuracy>=0.9' \(did you mean 'accuracy'\?\)"),
        ("accuracy=0.97", "expected 'accuracy>=0.97' or 'accuracy<=0.97', got 'accuracy=0.97': '=' is a budget"),
        ("macs<=0.5,", "expected a bound such as"),
        ("macs<=1e999", "with a finite number"),
        ("macs<=nan", "with a finite number"),
        ("macs<0.5", "expected a bound such as"),
        ("macs<=50%", "expected a bound such as"),
        (None, "expected bounds such as"),
        (3, "expected bounds such as"),
    ],
)
def test_what_names_nothing_is_told(text, message):
    with pytest.raises(ConfigError, match=message):
        choice().pick(text)


def test_where_nothing_is_within_the_nearest_member_is_named_with_its_figures():
    with pytest.raises(
        InfeasibleBudget, match=r"nearest is row 14, candidate 15-15-8, with accuracy 0.994\. .*0\.8 to 0"
    ):
        choice().pick("accuracy>=0.999")
    with pytest.raises(
        InfeasibleBudget, match=r"row 2, candidate 3-3-8, with accuracy 0.97 and macs 100 \(0.1000 of dense"
    ):
        choice().pick("accuracy>=0.97,macs<=0.09")


def test_a_member_without_the_value_is_never_within_and_never_the_nearest():
    lacking = Evaluation(Candidate((0,)), {"macs": 1.0})
    both = Choice([lacking, Evaluation(Candidate((1,)), {"macs": 9.0, "kl": 0.5})], (Objective("macs", "min"),), DENSE)
    assert both.pick("kl<=1").index == 1
    with pytest.raises(InfeasibleBudget, match="nearest is row 2 with kl 0.5"):
        both.pick("kl<=0.1")
