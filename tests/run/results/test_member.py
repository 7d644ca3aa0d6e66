"""A member of a front: its row, by hand, and back."""

import copy
import json
import pickle
from dataclasses import replace

import pytest

from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.run.results.front_file import FrontFile, to_csv
from autoprune.run.results.member import Member

DENSE = {"macs": 200, "params": 40, "joules": 4.0}
ROW = {
    "candidate": "1-3",
    "macs": 50,
    "params": 10,
    "joules": 1.0,
    "macs_ratio": 0.25,
    "params_ratio": 0.25,
    "joules_ratio": 0.25,
    "density": 0.5,
    "accuracy": 0.75,
    "loss_low": 3.0,  # a measurement of that name: there is no `loss` whose interval it could end
    "kl": 0.5,
    "accuracy_low": 0.5,
    "accuracy_high": 0.875,
    "select_accuracy": 0.625,
    "select_kl": 0.25,
    "search_kl": 1.0,
    "verify_error": 1e-7,
    "levels": [2, 1],
    "kept": {"a": 1, "b": 3},
    "fit": {"unexplained": {"a": 0.125}, "untouched": {}},
    "emptied": 1,
    "emptied_weights": ["b.weight"],
    "finetune_steps": 30,
}
CSV = (
    "candidate,macs,params,joules,macs_ratio,params_ratio,joules_ratio,density,accuracy,loss_low,kl,accuracy_low,"
    "accuracy_high,select_accuracy,select_kl,search_kl,verify_error,emptied,finetune_steps\n"
    "1-3,50,10,1.0,0.25,0.25,0.25,0.5,0.75,3.0,0.5,0.5,0.875,0.625,0.25,1.0,1e-07,1,30\n"
)


HARM = {"agreement": 0.9, "agreement_low": 0.8, "agreement_high": 0.95, "recall_worst": 0.25, "flips": [4, 2]}


@pytest.fixture
def member():
    return Member.from_json(ROW, DENSE)


def test_a_row_is_taken_apart(member):
    assert member.levels == (2, 1)
    assert member.counts == {"a": 1, "b": 3}
    assert member.costs == {"macs": 50, "params": 10, "joules": 1.0}
    assert member.ratios == dict.fromkeys(DENSE, 0.25)
    assert member.report == {"accuracy": 0.75, "loss_low": 3.0, "kl": 0.5}
    assert member.select == {"accuracy": 0.625, "kl": 0.25}
    assert member.search == {"kl": 1.0}
    assert member.intervals == {"accuracy": (0.5, 0.875)}
    assert (member.density, member.steps, member.emptied, member.emptied_weights) == (0.5, 30, 1, ("b.weight",))
    assert member.as_built == {"accuracy": 0.625, "kl": 0.25, **member.costs}
    assert member.evaluation.candidate == Candidate((2, 1))


def test_a_row_is_written_as_it_was_read_in_the_same_order(member):
    assert json.dumps(member.to_json()) == json.dumps(ROW)
    assert to_csv([member]) == CSV


@pytest.mark.parametrize(
    "absent",
    [("density",), ("emptied", "emptied_weights"), ("emptied_weights",), ("finetune_steps",), ("fit",), ("search_kl",)],
)
def test_a_row_without_what_only_some_searches_have_stays_without_it(absent):
    row = {name: value for name, value in ROW.items() if name not in absent}
    assert Member.from_json(row, DENSE).to_json() == row


def test_a_front_that_counts_emptied_weights_counts_them_last_where_they_were_not_looked_for():
    row = {name: value for name, value in ROW.items() if not name.startswith("emptied")} | {"emptied": 0}
    assert list(Member.from_json(row, DENSE).to_json())[-2:] == ["finetune_steps", "emptied"]


def test_a_column_is_read_by_its_name_and_an_unknown_one_is_told(member):
    assert (member["macs"], member["select_kl"], member["accuracy_high"]) == (50, 0.25, 0.875)
    assert dict(member) == {name: value for name, value in ROW.items() if not isinstance(value, list | dict)}
    with pytest.raises(KeyError, match="no column 'mac'; 1-3 has candidate, macs, params"):
        _ = member["mac"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"macs": "50"}, "expected a number as macs, got '50'"),
        ({"verify_error": None}, "expected a number as verify_error"),
        ({"levels": [1.5]}, "expected a name and levels"),
        ({"kept": {"a": "1"}}, "expected kept counts by unit"),
    ],
)
def test_what_is_no_row_is_told(changes, message):
    with pytest.raises(ValueError, match=message):
        Member.from_json({**ROW, **changes}, DENSE)


def test_a_member_that_was_read_alone_says_what_it_needs_to_be_built(member, tmp_path):
    for make in (member.build, lambda: member.export(tmp_path / "small")):
        with pytest.raises(ConfigError, match=r"network 1-3, it was read without them.*autoprune.open_run"):
            make()


def test_a_member_is_shown_in_a_line_however_many_units_it_has():
    row = {**ROW, "candidate": "-".join(["128"] * 200)}
    assert len(repr(Member.from_json(row, DENSE))) < 200
    assert repr(Member.from_json(ROW, DENSE)).startswith("Member(1-3: macs 50 (0.2500), params 10 (0.2500)")


def test_a_front_of_an_earlier_version_says_nothing_of_what_was_left_out():
    front = FrontFile.from_json({"objectives": [["select_kl", "min"], ["macs", "min"]], "dense": DENSE, "rows": [ROW]})
    assert front.left_out == ()
    assert [(o.name, o.direction) for o in front.followed] == [("kl", "min"), ("macs", "min")]
    assert front.picked("macs<=0.5").candidate == "1-3"


def test_nothing_changes_a_member_and_it_is_pickled_as_one_that_was_read_alone(member):
    for name in ("counts", "costs", "report", "select", "search", "intervals"):
        with pytest.raises(TypeError, match="expected no change of a read-only mapping. Change a copy"):
            getattr(member, name)["accuracy"] = 1.0
    with pytest.raises(TypeError, match="read-only"):
        member.fit["unexplained"].clear()
    with pytest.raises(TypeError, match="read-only"):
        member.report.update(accuracy=1.0)
    built = replace(member, builder=lambda: None)  # neither the function nor what it holds is pickled
    again = pickle.loads(pickle.dumps(built))
    assert again == member
    assert again.builder is None
    assert copy.deepcopy(built) is copy.copy(built) is built
    assert json.dumps(again.report) == json.dumps(dict(member.report))


def test_values_of_harm_are_columns_on_request_alone(member):
    member = Member.from_json({**ROW, "harm": HARM}, DENSE)
    assert json.dumps(member.to_json()) == json.dumps({**ROW, "harm": HARM})
    assert to_csv([member]) == CSV
    wide = member.with_harm()
    assert (wide["agreement"], wide["agreement_low"], wide["recall_worst"]) == (0.9, 0.8, 0.25)
    assert wide.intervals["agreement"] == (0.8, 0.95)
    own = replace(member, report={**member.report, "agreement": 0.5}).with_harm()
    assert own["agreement"] == 0.5
    assert "agreement" not in own.intervals


def test_a_pick_compares_the_lower_end_of_the_agreement(member):
    member = replace(member, harm=HARM)
    larger = replace(
        member,
        candidate="2-3",
        costs={**member.costs, "macs": 100},
        harm={"agreement": 0.97, "agreement_low": 0.96, "agreement_high": 0.98},
    )
    front = FrontFile((member, larger), (("select_accuracy", "max"), ("macs", "min")), DENSE)
    assert front.pick("agreement>=0.8").index == 0
    found = front.pick("agreement>=0.9")  # which the smaller network has, but its lower end is below
    assert found.index == 1
    assert found.why == "cheapest by macs among 1 with agreement >= 0.9 (by the lower end of its 95 % interval)"
    assert front.pick("recall_worst>=0.2").index == 0
    with pytest.raises(InfeasibleBudget, match=r"2-3, with agreement 0\.96 at the lower end of its 95 % interval"):
        front.pick("agreement>=0.97")
