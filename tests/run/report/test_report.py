"""The report of a run: figures against hand arithmetic and scipy, pages against a parser, folders written by hand."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.core.unit import Slot, Span, Unit
from autoprune.errors import RunNotFound
from autoprune.measure.form import Form, Tuning
from autoprune.run.records.journal import encode
from autoprune.run.report import write_report
from autoprune.run.report.chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, ChartAxis
from autoprune.run.report.facts import audits, growth, read_facts
from autoprune.run.report.markup import number
from autoprune.run.results.front_file import read_front

VOID = {"meta", "br"}
DENSE = {"macs": 100, "params": 40}
OBJECTIVES = [["select_kl", "min"], ["macs", "min"]]


class Page(HTMLParser):
    """A parsed report: its start tags, its text, and whether every tag was closed in order."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, **attributes: str) -> int:
        return sum(name == tag and attributes.items() <= found.items() for name, found in self.tags)


def row(levels: Sequence[int], macs: int, report: Mapping[str, float], select: Mapping[str, float]) -> dict[str, Any]:
    kept = {unit: (4, 2, 1)[level] for unit, level in zip(("first", "second"), levels, strict=True)}
    return {
        "candidate": "-".join(map(str, kept.values())),
        "macs": macs,
        "params": macs // 2,
        "macs_ratio": macs / 100,
        "params_ratio": macs // 2 / 40,
        **report,
        **{f"select_{name}": value for name, value in select.items()},
        "verify_error": 2e-7,
        "levels": list(levels),
        "kept": kept,
    }


ROWS = [
    row((2, 2), 20, {"accuracy": 0.5, "kl": 3.0}, {"accuracy": 0.6, "kl": 2.0}),
    row((1, 1), 50, {"accuracy": 0.8, "kl": 1.5}, {"accuracy": 0.8, "kl": 1.0}),
    row((0, 0), 100, {"accuracy": 0.9, "kl": 0.0}, {"accuracy": 0.95, "kl": 0.0}),
]


def of_rows(rows: Sequence[Mapping[str, Any]]) -> list[Evaluation]:
    return [
        Evaluation(
            Candidate(tuple(r["levels"])),
            {name.removeprefix("select_"): v for name, v in r.items() if name.startswith("select_")}
            | {"macs": r["macs"], "params": r["params"]},
        )
        for r in rows
    ]


def write_run(
    path: Path,
    rows: Sequence[Mapping[str, Any]] = ROWS,
    told: Sequence[Evaluation] | None = None,
    *,
    objectives: Sequence[Sequence[str]] = OBJECTIVES,
    wanted: Sequence[Sequence[Any]] = (("accuracy", "max", None), ("macs", "min", None)),
    units: Sequence[str] = ("first", "second"),
    job: str = "name: tiny\nmodel:\n  call: models:net\nsearch:\n  searcher:\n    name: auto\n",
    frozen: Sequence[Sequence[Any]] = (),
    uncounted: Sequence[str] = (),
    modules: Sequence[str] | None = None,
    structure: Sequence[Unit] | None = None,
) -> Path:
    """A run folder as a search leaves it; without a structure every unit is a layer of its own before one head."""
    path.mkdir()
    if structure is None:
        slots = [(Slot(f"{name}.weight", 0, "out"), Slot("head.weight", 1, "in")) for name in units]
        structure = [Unit(name, "channels", 4, touched) for name, touched in zip(units, slots, strict=True)]
    modules = [*units, "head"] if modules is None else modules
    coupling = {"modules": modules, "units": [unit.to_json() for unit in structure]}
    sets = {name: {"examples": 200, "batches": 2, "sha256": "ab" * 32} for name in ("calibrate", "select", "report")}
    environment = {
        "python": "3.11.7",
        "threads": 2,
        "data": {"reader": "digits", "indices": [1, 2], "sets": sets, "shared": {"select/report": 1}},
        "frozen": frozen,
        "uncounted_operators": uncounted,
    }
    space = {"units": units, "levels": [[4, 2, 1]] * len(units)}
    identity = {"objectives": wanted, "guide": "kl", "seed": 7, "evaluations": 10, "space": space}
    tuning = Tuning(Form(), "tuning is off").to_json()
    evaluations = [e.to_json() for e in (of_rows(rows) if told is None else told)]
    asked = {"candidates": [e["levels"] for e in evaluations], "fidelities": [e["fidelity"] for e in evaluations]}
    records = [{"kind": "run", "identity": identity, "tuning": tuning}, {"kind": "ask", "n": len(evaluations), **asked}]
    records += [{"kind": "tell", "evaluation": evaluation} for evaluation in evaluations]
    (path / "job.yaml").write_text(job)
    (path / "space.json").write_text(json.dumps(space))
    (path / "structure.json").write_text(json.dumps(coupling))
    (path / "environment.json").write_text(json.dumps(environment))
    (path / "front.json").write_text(json.dumps({"objectives": objectives, "dense": DENSE, "rows": rows}))
    (path / "journal.jsonl").write_bytes(b"".join(map(encode, records)))
    return path


def report_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text())


def test_optimism_is_positive_where_the_selection_set_looked_better_in_either_direction(tmp_path: Path) -> None:
    by_name = {(a.selected, a.reported): a for a in audits(read_facts(write_run(tmp_path / "run")))}
    assert by_name["accuracy", "accuracy"].optimism == pytest.approx((0.1 + 0 + 0.05) / 3)
    assert by_name["kl", "kl"].optimism == pytest.approx((1.0 + 0.5 + 0) / 3)


def test_a_guide_that_falls_as_accuracy_rises_has_tau_one(tmp_path: Path) -> None:
    guide = audits(read_facts(write_run(tmp_path / "run")))[0]
    assert (guide.selected, guide.reported, guide.tau, guide.optimism) == ("kl", "accuracy", 1.0, None)


def test_optimism_of_a_value_without_a_known_direction_is_not_guessed(tmp_path: Path) -> None:
    rows = [row((0, 0), 100, {"kl": 0.0, "spread": 2.0}, {"kl": 0.0, "spread": 1.0})]
    folder = write_run(tmp_path / "run", rows, wanted=[["kl", "min", None], ["macs", "min", None]])
    assert {a.selected: a.optimism for a in audits(read_facts(folder))} == {"kl": 0.0, "spread": None}


def test_hypervolume_grows_as_counted_by_hand(tmp_path: Path) -> None:
    def scored(level: int, macs: int, kl: float) -> Evaluation:
        return Evaluation(Candidate((level, 0)), {"kl": kl, "accuracy": 0.5, "macs": macs, "params": 1})

    failed = Evaluation(Candidate((0, 1)), {"macs": 60, "params": 1}, "failed", "ValueError: odd")
    told = [scored(0, 50, 0.0), failed, scored(1, 20, 4.0), scored(2, 20, 2.0)]
    grown = growth(read_facts(write_run(tmp_path / "run", ROWS, told)))
    # kl from 0 (best) to 4 (worst), macs over 100: (0, .5) covers .5, (1, .2) nothing, (.5, .2) another .5 * .3
    assert [x for x, _ in grown.points] == [1, 2, 3, 4]
    assert [y for _, y in grown.points] == pytest.approx([0.5, 0.5, 0.5, 0.65])
    assert grown.reference == ("kl = 4 (the worst seen)", "macs = 100 (dense)")


def test_hypervolume_of_networks_that_are_all_alike_is_the_cost_they_save(tmp_path: Path) -> None:
    told = [Evaluation(Candidate((1, 1)), {"kl": 1.0, "accuracy": 0.5, "macs": 30, "params": 1})]
    assert growth(read_facts(write_run(tmp_path / "run", ROWS, told))).points == [(1.0, pytest.approx(0.7))]


def test_a_network_told_twice_or_outside_the_bounds_is_no_second_evaluation(tmp_path: Path) -> None:
    first, second, third = of_rows(ROWS)
    outside = Evaluation(Candidate((0, 2)), {}, "infeasible", "outside the bounds")
    folder = write_run(tmp_path / "run", told=[first, outside, second, first, third, outside])
    assert read_facts(folder).spent == (first, second, third)
    assert "3 evaluations (3 ok, 0 failed), 1 proposal outside the bounds" in report_of(folder).text


def test_every_row_is_what_its_pick_picks(tmp_path: Path) -> None:
    rows = [
        row((0, 1), 501, {"kl": 3.0}, {"kl": 3.0}) | {"macs_ratio": 0.5010},
        row((1, 1), 502, {"kl": 2.0}, {"kl": 2.0}) | {"macs_ratio": 0.5020},
        row((2, 1), 510, {"kl": 1.0}, {"kl": 1.0}) | {"macs_ratio": 0.5100},
    ]
    folder = write_run(tmp_path / "run", rows)
    document = {"objectives": OBJECTIVES, "dense": {**DENSE, "macs": 1000}, "rows": rows}
    (folder / "front.json").write_text(json.dumps(document))
    facts = read_facts(folder)
    picks = [facts.pick(member) for member in facts.members]
    assert picks == ["macs<=0.501", "macs<=0.502", "macs<=0.51"]
    assert [read_front(folder, pick)[0].levels for pick in picks if pick] == [(0, 1), (1, 1), (2, 1)]


def test_a_row_that_another_beats_at_lower_cost_has_no_pick(tmp_path: Path) -> None:
    rows = [
        row((1, 0), 50, {"kl": 1.0}, {"kl": 1.0}),
        row((0, 1), 60, {"kl": 2.0}, {"kl": 2.0}) | {"params": 1},  # on the front for its parameters alone
    ]
    folder = write_run(tmp_path / "run", rows, objectives=[*OBJECTIVES, ["params", "min"]])
    facts = read_facts(folder)
    assert [facts.pick(member) for member in facts.members] == ["macs<=0.5", None]
    assert report_of(folder).count("polyline", **{"class": "member"}) == 1  # hypervolume; three objectives: no front


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.0, 1.0], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([0.31, 0.3], ["0.300", "0.302", "0.304", "0.306", "0.308", "0.310"]),
        ([1.0, 300.0], ["0", "100", "200", "300"]),
        ([-1.0, 1.0], ["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
        ([5.0], ["4.4", "4.6", "4.8", "5.0", "5.2", "5.4", "5.6"]),
        ([], ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        ([math.nan, 0.0, 2000.0], ["0", "500", "1,000", "1,500", "2,000"]),
    ],
)
def test_ticks_are_round_and_reach_both_ends(values: list[float], ticks: list[str]) -> None:
    axis = ChartAxis.over("x", values)
    assert [axis.label(tick) for tick in axis.ticks] == ticks


def test_an_axis_covers_what_it_was_made_over_with_few_ticks() -> None:
    rng = np.random.default_rng(0)
    for scale in (1e-7, 1e-3, 1.0, 1e9):
        for values in (rng.normal(size=(50, 3)) * scale).tolist():
            axis = ChartAxis.over("x", values)
            assert all(axis.covers(value) for value in values)
            assert 3 <= len(axis.ticks) <= 8


def test_the_corners_of_the_plot_are_the_ends_of_the_axes() -> None:
    chart = Chart(ChartAxis.over("x", [0, 10]), ChartAxis.over("y", [0, 1]))
    corners = f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}"
    assert f'points="{corners}"' in chart.line([(0, 0), (10, 1)], "member")


def test_dots_share_one_path_without_those_outside_or_on_the_same_pixel() -> None:
    chart = Chart(ChartAxis.over("x", [0, 1]), ChartAxis.over("y", [0, 1]))
    path = chart.dots([(0, 0), (1, 1), (1, 1.0001), (0.5, 7), (0, 1e-9)], "seen")
    assert path.count("M") == 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1648256, "1,648,256"),
        (0, "0"),
        (0.0, "0.0000"),
        (3.0, "3.0000"),
        (0.9173, "0.9173"),
        (2e-7, "2e-07"),
        (1234.56, "1,234.6"),
    ],
)
def test_numbers_are_shown_with_the_digits_a_reader_needs(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_missing_number_is_a_dash(value: float | None) -> None:
    assert number(value) == "\N{EN DASH}"


def test_the_summary_tells_the_job_the_evaluations_and_the_dense_network(tmp_path: Path) -> None:
    text = report_of(write_run(tmp_path / "run")).text
    assert "3 evaluations (3 ok, 0 failed). 3 networks on the front." in text
    assert "Model models:net, searcher auto, guide kl, seed 7." in text
    for label, value in (("dense macs", "100"), ("dense accuracy", "0.9000"), ("accuracy at half the macs", "0.8000")):
        assert label + value in text


def test_the_front_has_a_mark_and_a_line_of_the_table_for_each_member(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run"))
    assert page.count("circle", **{"class": "member"}) == 3 + 1 + 3  # front, end of the hypervolume, audit
    assert "2: macs 50.0% of dense, accuracy 0.8000" in page.text
    assert all(f"macs<={bound}" in page.text for bound in ("0.2", "0.5", "1"))
    assert f"autoprune export {tmp_path / 'run'} --pick 'macs<=0.5' --out DIR" in page.text


def test_the_heat_map_has_each_count_with_its_width(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run"))
    titles = [found["title"] for tag, found in page.tags if tag == "td" and "title" in found]
    assert titles == [f"{unit}: {kept} of 4" for unit in ("first", "second") for kept in (1, 2, 4)]


# a stem whose channels a residual block with three heads adds to, a recurrent layer, a token that is in no module
HAND_MODULES = ("", "stem", "norm", "block.qkv", "block.out", "memory", "head", "spare")
HAND_UNITS = (
    Unit(
        "stem",
        "channels",
        8,
        (
            Slot("stem.weight", 0, "out"),
            Slot("stem.bias", 0, "out"),
            Slot("norm.weight", 0, "along"),
            Slot("norm.running_mean", 0, "along"),
            Slot("block.qkv.weight", 1, "in"),
            Slot("block.out.weight", 0, "out"),
            Slot("memory.weight_ih", 1, "in"),
        ),
        normalised=True,
    ),
    Unit(
        "block.qkv",
        "heads",
        3,
        (Slot("block.qkv.weight", 0, "out", Span(0, 4, ((3, 12),))), Slot("block.out.weight", 1, "in", Span(0, 4))),
    ),
    Unit("token", "channels", 2, (Slot("token", 0, "out"), Slot("head.weight", 1, "in", Span(5)))),
    Unit(
        "memory",
        "neurons",
        5,
        (
            Slot("memory.weight_ih", 0, "out"),
            Slot("memory.weight_hh", 0, "out"),
            Slot("memory.weight_hh", 1, "in"),
            Slot("head.weight", 1, "in"),
        ),
    ),
)


def write_hand_made(path: Path) -> Path:
    return write_run(path, modules=HAND_MODULES, structure=HAND_UNITS, units=("stem", "memory"), rows=HAND_ROWS)


HAND_ROWS = [{**ROWS[2], "kept": {"stem": 4, "memory": 4}}]


class Picture:
    """The picture of the coupling, read off by where things stand: `marks` are (unit, module, letter) -> tooltip."""

    def __init__(self, folder: Path) -> None:
        found = re.findall(r'<svg class="map-(?:side|columns|marks)".*?</svg>', write_report(folder).read_text())
        _, self.columns, self.labels, body = map(ET.fromstring, found)
        modules = {text.get("x"): text.text for text in self.columns.iter("text")}
        units = {text.get("y"): text.text for text in self.labels.iter("text") if text.get("class") is None}
        self.marks: dict[tuple[str | None, str | None, str], str | None] = {}
        for row in body.iter("g"):
            letters = row.find("text")
            at = dict(zip(letters.get("x").split(), letters.text, strict=True))
            for path in row.findall("path[title]"):
                x, y = re.match(r"M([\d.]+) ([\d.]+)m", path.get("d")).groups()
                self.marks[units[y], modules[x], at[x]] = path.find("title").text

    def lines(self) -> list[str | None]:
        """What stands at the left, line by line: headings and units with their widths."""
        return [text.text for text in self.labels.iter("text")]


def test_a_mark_stands_where_a_unit_touches_a_module(tmp_path: Path) -> None:
    assert set(Picture(write_hand_made(tmp_path / "run")).marks) == {
        ("stem", "stem", "P"),
        ("stem", "norm", "A"),
        ("stem", "block.qkv", "C"),
        ("stem", "block.out", "P"),
        ("stem", "memory", "C"),
        ("token", "(the model)", "P"),
        ("token", "head", "C"),
        ("block.qkv", "block.qkv", "P"),
        ("block.qkv", "block.out", "C"),
        ("memory", "memory", "B"),
        ("memory", "head", "C"),
    }


def test_the_tooltip_of_a_mark_names_the_tensors_by_what_is_done_to_them(tmp_path: Path) -> None:
    marks = Picture(write_hand_made(tmp_path / "run")).marks
    assert marks["stem", "stem", "P"] == "stem in stem: produces weight, bias"
    assert marks["stem", "norm", "A"] == "stem in norm: runs along weight, running_mean"
    assert marks["memory", "memory", "B"] == "memory in memory: produces weight_ih, weight_hh; consumes weight_hh"
    assert marks["token", "(the model)", "P"] == "token in (the model): produces token"


def test_units_stand_under_their_kind_with_their_width_and_modules_in_the_order_of_the_network(tmp_path: Path) -> None:
    picture = Picture(write_hand_made(tmp_path / "run"))
    kinds = ["channels (2)", "stem", "8", "token", "2", "heads (1)", "block.qkv", "3", "neurons (1)", "memory", "5"]
    assert picture.lines() == kinds
    shown = [text.text for text in picture.columns.iter("text")]
    assert shown == ["(the model)", "stem", "norm", "block.qkv", "block.out", "memory", "head"]
    places = [float(text.get("x")) for text in picture.columns.iter("text")]
    assert places == sorted(places)


def test_the_tooltip_of_a_unit_tells_what_its_row_has_no_room_for(tmp_path: Path) -> None:
    tips = [title.text for title in Picture(write_hand_made(tmp_path / "run")).labels.iter("title")]
    assert tips[0] == "stem: channels, 8 wide, at least 1, a normalisation runs over its positions"
    assert tips[2] == "block.qkv: heads, 3 wide, at least 1, not searched"


def test_the_legend_has_the_marks_that_occur_and_the_text_counts_what_is_left_out(tmp_path: Path) -> None:
    hand_made, plain = report_of(write_hand_made(tmp_path / "hand")), report_of(write_run(tmp_path / "plain"))
    assert "Left out: 1 module with tensors that no unit touches." in hand_made.text
    assert "PproducesCconsumesAruns alongBproduces and consumes" in hand_made.text
    assert "PproducesCconsumes\n" in plain.text
    assert "Left out" not in plain.text


def test_a_long_name_keeps_its_end_and_is_whole_in_the_tooltip(tmp_path: Path) -> None:
    name = "vision_model.encoder.layers.11.self_attention.query_projection"
    rows = [{**ROWS[2], "kept": {name: 4}}]
    picture = Picture(write_run(tmp_path / "run", rows, units=[name]))
    (_, label, _), column = picture.lines(), next(picture.columns.iter("text"))
    assert label == column.text == "\N{HORIZONTAL ELLIPSIS}.11.self_attention.query_projection"
    assert column.find("title").text == name


def test_three_hundred_units_have_a_row_each_and_the_file_stays_small(tmp_path: Path) -> None:
    blocks = [f"encoder.layer.{i}" for i in range(100)]
    modules = [f"{block}.{part}" for block in blocks for part in ("query", "value", "output", "up", "down")]
    structure = [
        Unit(
            f"{block}.{made}",
            kind,
            12,
            (Slot(f"{block}.{made}.weight", 0, "out"), Slot(f"{block}.{read}.weight", 1, "in")),
        )
        for block in blocks
        for kind, made, read in (
            ("heads", "query", "output"),
            ("head_dim", "value", "output"),
            ("neurons", "up", "down"),
        )
    ]
    folder = write_run(tmp_path / "run", modules=modules, structure=structure)
    picture = Picture(folder)
    assert len(picture.marks) == 600
    assert len({text.get("y") for text in picture.labels.iter("text")}) == 303
    assert (folder / "report.html").stat().st_size < 400_000


def test_failed_evaluations_are_counted_by_cause(tmp_path: Path) -> None:
    failed = [Evaluation(Candidate((0, level)), {}, "failed", "ValueError: odd") for level in (1, 2)]
    late = Evaluation(Candidate((2, 0)), {}, "timeout", "took 9 s")
    page = report_of(write_run(tmp_path / "run", told=[*of_rows(ROWS), *failed, late]))
    assert "6 evaluations (3 ok, 3 failed)" in page.text
    assert "failed: ValueError: odd2" in page.text
    assert "timeout: took 9 s1" in page.text


def test_layers_that_were_not_fitted_come_with_the_reason_whoever_they_belong_to(tmp_path: Path) -> None:
    fits: list[dict[str, Any]] = [{}, {"untouched": {"stem": "shared"}}, {"untouched": {"head": "too wide"}}]
    rows = [{**row, "fit": fit} for row, fit in zip(ROWS, fits, strict=True)]
    text = report_of(write_run(tmp_path / "run", rows)).text
    assert "stemshared" in text
    assert "headtoo wide" in text
    assert "not fitted" not in report_of(write_run(tmp_path / "old")).text


def test_fits_of_layers_are_told_over_all_networks(tmp_path: Path) -> None:
    def fit(left: float, ridge: float | None) -> dict[str, Any]:
        by_layer = {"unexplained": left, "ridge": ridge, "rows": 600, "columns": 200}
        return {"examples": 60, "untouched": {}, **{key: {"stem": value} for key, value in by_layer.items()}}

    fits: list[dict[str, Any]] = [fit(0.25, 0.01), fit(0.5, None), fit(0.125, 1.0)]
    rows = [{**row, "fit": fit} for row, fit in zip(ROWS, fits, strict=True)]
    text = report_of(write_run(tmp_path / "run", rows)).text
    assert "stem30.01 to 10.125 to 0.52 of 3" in text


def test_a_class_whose_recall_falls_is_flagged(tmp_path: Path) -> None:
    harm = {
        **{"agreement": 0.9, "agreement_low": 0.85, "agreement_high": 0.94, "flipped": 0.06, "flips": [7, 3]},
        **{"recall_worst": 0.5, "recall_worst_class": 3, "recall_drop": 0.25, "recall_drop_class": 3},
        **{"recall_drop_low": 0.1, "recall_drop_high": 0.375, "classes": [[3, 40, 0.75, 0.5, 0.1, 0.375]]},
        "notes": ["Without examples, and thus left out: class 5."],
    }
    page = report_of(write_run(tmp_path / "run", [ROWS[0], {**ROWS[1], "harm": harm}, ROWS[2]]))
    assert "Who is harmed" in page.text
    assert (
        "Warning: in 2-2 the recall of class 3 falls from 75.0% to 50.0%, by 25.0 points (95 % interval 10.0 to 37.5)."
    ) in page.text
    assert "2-2: 7, 3" in page.text
    assert "Without examples, and thus left out: class 5." in page.text
    assert page.text.count("Warning: in") == 1


def test_a_front_that_was_not_measured_by_class_has_no_such_section(tmp_path: Path) -> None:
    assert "Who is harmed" not in report_of(write_run(tmp_path / "run")).text


def test_frozen_parts_come_with_their_reason_and_uncounted_operators_by_name(tmp_path: Path) -> None:
    frozen = [["layer9.pad", 0.125, "padded in"]]
    text = report_of(write_run(tmp_path / "run", frozen=frozen, uncounted=["aten::roll"])).text
    assert "layer9.pad12.5%padded in" in text
    assert "leave out operators without a rule: aten::roll." in text


def test_the_environment_names_data_sets_and_what_they_share(tmp_path: Path) -> None:
    text = report_of(write_run(tmp_path / "run")).text
    assert "readerdigits" in text
    assert "calibrate200abababababababab" in text
    assert "Examples in two sets: select/report 1." in text
    assert "indices" not in text  # lists of positions stay in environment.json


def test_other_names_and_directions_of_objectives_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [row((1, 1), 50, {"psnr": 30.5}, {"psnr": 31.0}), row((0, 0), 100, {"psnr": 40.0}, {"psnr": 40.0})]
    wanted = [["psnr", "max", None], ["params", "min", None]]
    objectives = [["select_psnr", "max"], ["params", "min"]]
    page = report_of(write_run(tmp_path / "run", rows, objectives=objectives, wanted=wanted))
    assert "psnr, higher is better" in page.text
    assert "params, share of dense" in page.text
    assert "accuracy" not in page.text


def test_an_objective_of_the_job_is_drawn_before_other_measurements(tmp_path: Path) -> None:
    rows = [row((0, 0), 100, {"kl": 0.0, "accuracy": 0.9}, {"kl": 0.0, "accuracy": 0.9})]
    assert read_facts(write_run(tmp_path / "run", rows)).measured == ("accuracy", "kl")


def test_a_front_of_costs_alone_has_its_table_and_no_audit(tmp_path: Path) -> None:
    objectives = [["macs", "min"], ["params", "min"]]
    page = report_of(write_run(tmp_path / "run", [row((2, 2), 20, {}, {})], objectives=objectives))
    assert "The fitness reports nothing to draw over costs." in page.text
    assert "The fitness measures nothing on both sets." in page.text
    assert "macs<=0.2" in page.text


def test_a_front_of_one_member_has_no_line_and_no_tau(tmp_path: Path) -> None:
    page = report_of(write_run(tmp_path / "run", ROWS[:1]))
    assert page.count("polyline", **{"class": "member"}) == 0
    assert "select_accuracyaccuracy\N{EN DASH}0.1000" in page.text


@pytest.mark.parametrize("told", [[], [Evaluation(Candidate((0, 0)), {}, "failed", "ValueError: odd")]])
def test_a_run_without_a_success_has_a_report_that_says_so(tmp_path: Path, told: list[Evaluation]) -> None:
    page = report_of(write_run(tmp_path / "run", [], told))
    assert page.text.count("The front is empty: no evaluation succeeded.") == 3
    assert "No evaluation succeeded, so nothing is covered." in page.text


def test_a_job_made_in_python_is_called_after_its_folder(tmp_path: Path) -> None:
    text = report_of(write_run(tmp_path / "from-python", job="{}\n")).text
    assert "from-python: autoprune report" in text
    assert "The job was made in Python." in text


def test_everything_a_user_names_is_escaped(tmp_path: Path) -> None:
    evil = "</title><script>alert('1 & 2')</script>\"'<\N{GREEK SMALL LETTER ALPHA}"
    rows = [{**ROWS[0], "kept": {evil: 1, "second": 2}, evil: 1.0, f"select_{evil}": 1.0}]
    failed = Evaluation(Candidate((1, 0)), {}, "failed", evil)
    folder = write_run(
        tmp_path / "a 'quoted' <folder>",
        rows,
        [*of_rows(rows), failed],
        units=(evil, "second"),
        wanted=[[evil, "max", None]],
        job=json.dumps({"name": evil, "model": {"call": evil}}),
        frozen=[[evil, 0.5, evil]],
        uncounted=[evil],
    )
    page = report_of(folder)
    assert page.count("script") == 0
    assert page.text.count(evil) >= 9
    assert f"{evil}: 1 of 4" in [found.get("title") for _, found in page.tags]


def test_the_file_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    markup = write_report(write_run(tmp_path / "run")).read_text()
    assert not [word for word in ("http:", "https:", "src=", "href=", "url(", "@import", "<script") if word in markup]
    assert "prefers-color-scheme: dark" in markup
    assert 'name="viewport"' in markup


def test_writing_a_report_again_writes_the_same_bytes(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    assert write_report(folder).read_bytes() == write_report(folder).read_bytes()


def test_seconds_and_workers_leave_no_trace(tmp_path: Path) -> None:
    def told(seconds: float, worker: str) -> list[Evaluation]:
        return [Evaluation(e.candidate, e.values, "ok", "", seconds, worker) for e in of_rows(ROWS)]

    slow, fast = tmp_path / "slow" / "run", tmp_path / "fast" / "run"
    for folder, evaluations in ((slow, told(123.25, "a")), (fast, told(0.5, "b"))):
        folder.parent.mkdir()
        write_run(folder, told=evaluations)
    assert write_report(slow).read_text().replace(str(slow), str(fast)) == write_report(fast).read_text()


def test_a_report_of_a_large_run_stays_small(tmp_path: Path) -> None:
    units = [f"features.denseblock{i}.denselayer.conv1" for i in range(60)]
    rng = np.random.default_rng(0)
    values = np.sort(rng.random((32, 2)), axis=0).tolist()
    rows = [
        row((0, index % 3), 1 + int(99 * cost), {"accuracy": good}, {"accuracy": good})
        | {"levels": [index] * 60, "kept": dict.fromkeys(units, 2)}
        for index, (cost, good) in enumerate(values)
    ]
    told = [
        Evaluation(Candidate((index,) * 2), {"accuracy": good, "macs": 100 * cost, "params": 1})
        for index, (cost, good) in enumerate(rng.random((3000, 2)).tolist())
    ]
    objectives = [["select_accuracy", "max"], ["macs", "min"]]
    path = write_report(write_run(tmp_path / "run", rows, told, units=units, objectives=objectives))
    assert path.stat().st_size < 300_000
    assert "20 of 32 members are shown." in Page(path.read_text()).text


def test_evaluations_far_from_the_rest_are_counted_and_not_drawn(tmp_path: Path) -> None:
    told = of_rows(ROWS * 10)
    told = [Evaluation(Candidate((i, 0)), e.values) for i, e in enumerate(told)]
    told.append(Evaluation(Candidate((99, 0)), {"accuracy": -50.0, "kl": 1.0, "macs": 30, "params": 1}))
    assert "1 evaluation beyond the axis." in report_of(write_run(tmp_path / "run", told=told)).text


def test_a_folder_without_a_run_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match=r"expected a run folder with a job\.yaml"):
        write_report(tmp_path)


def test_a_run_without_a_front_says_how_to_finish_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "front.json").unlink()
    with pytest.raises(RunNotFound, match=r"has no front yet\. Finish it with: autoprune resume"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_folder_that_misses_what_the_job_tells_says_how_to_write_it_again(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "structure.json").unlink()
    with pytest.raises(RunNotFound, match=r"has no structure\.json\. Write it again with: autoprune resume .*run"):
        write_report(folder)


def test_a_folder_that_misses_files_names_them(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / "space.json").unlink()
    (folder / "journal.jsonl").unlink()
    with pytest.raises(RunNotFound, match=r"has no space\.json, journal\.jsonl\. Restore it from a copy"):
        write_report(folder)
