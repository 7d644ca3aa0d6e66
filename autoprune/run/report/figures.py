"""The sections with a picture: the front, the allocation, the growth of the hypervolume, the audit."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from html import escape
from itertools import chain

import numpy as np

from autoprune.run.records.columns import HIGH, LOW, RATIO, SELECT
from autoprune.run.report.chart import Chart, ChartAxis, Point
from autoprune.run.report.facts import Audit, RunFacts, audits, growth
from autoprune.run.report.markup import Cell, command, legend, note, number, percent, plural, section, table
from autoprune.run.results.member import Member

EMPTY = "The front is empty: no evaluation succeeded."
CELLS = 1200  # largest number of cells in the heat map; more are slow to load and too small to read


def front_section(facts: RunFacts) -> str:
    """The section on the front: every evaluation, the members of the front, and how to export each."""
    picture = _front_picture(facts) if facts.measured else note("The fitness reports nothing to draw over costs.")
    if not facts.members:
        return section("Front", picture if facts.measured else "", note(EMPTY))
    worst = max(member.verify_error for member in facts.members)
    return section(
        "Front",
        picture,
        note(
            f"Every member was built as it is exported: its outputs differ from those of its masked original by "
            f"{worst:.1g} relative at most."
        ),
        _front_table(facts),
        note("A pick finds the best network within a bound. To write one of them to a folder:"),
        command(f"autoprune export {shlex.quote(str(facts.path))} --pick '{_middle_pick(facts)}' --out DIR"),
    )


def _front_picture(facts: RunFacts) -> str:
    value = facts.measured[0]
    scored = [(facts.ratio(e), e.values[value]) for e in facts.scored]
    dense = facts.dense_values().get(value)
    chart = _front_axes(facts, scored)
    reference = chart.level(dense, "dense") if dense is not None else ""
    label = f"{value} over {facts.cost}: {plural(len(facts.members), 'member')} of the front and all evaluations"
    picture = chart.draw(label, chart.dots(scored, "seen"), reference, _members(facts, chart), _recovered(facts, chart))
    keys = {"member": "front, on the report set", "seen": "all evaluations, on the selection set"}
    keys |= {"recovered": "recovered networks, on the report set"} if facts.recovered else {}
    keys |= {"dense": f"dense network, {number(dense)} on the report set"} if reference else {}
    hidden = sum(not chart.y.covers(y) for _, y in scored)
    return legend(keys) + picture + (note(f"{plural(hidden, 'evaluation')} beyond the axis.") if hidden else "")


def _front_axes(facts: RunFacts, scored: Sequence[Point]) -> Chart:
    """Axes that cover the front and the middle nine tenths of the evaluations, so that outliers do not flatten it."""
    name = facts.measured[0]
    usual = np.quantile([y for _, y in scored], (0.05, 0.95)).tolist() if scored else []
    better = {"max": ", higher is better", "min": ", lower is better", None: ""}[facts.direction(name)]
    shown = (*facts.members, *facts.recovered)
    shares = [1.0, *(member.ratios[facts.cost] for member in shown), *(x for x, _ in scored)]
    return Chart(
        ChartAxis.over(f"{facts.cost}, share of dense", shares),
        ChartAxis.over(f"{name}{better}", [*usual, *(member.report[name] for member in shown)]),
    )


def _members(facts: RunFacts, chart: Chart) -> str:
    """The members of the front, connected by a line only if there are two objectives."""
    value = facts.measured[0]
    points = [(member.ratios[facts.cost], member.report[value]) for member in facts.members]
    tips = [
        f"{index}: {facts.cost} {percent(x)} of dense, {value} {number(y)}"
        for index, (x, y) in enumerate(points, start=1)
    ]
    joined = chart.line(sorted(points), "member") if len(facts.guides) == 2 else ""
    return joined + chart.marks(points, tips, "member")


def _recovered(facts: RunFacts, chart: Chart) -> str:
    """The recovered networks as a second series."""
    value = facts.measured[0]
    points = [(member.ratios[facts.cost], member.report[value]) for member in facts.recovered]
    tips = [
        f"{dict(member.recovered or {})['name']}, recovered: {facts.cost} {percent(x)} of dense, {value} {number(y)}"
        for member, (x, y) in zip(facts.recovered, points, strict=True)
    ]
    return chart.marks(points, tips, "recovered")


def _front_table(facts: RunFacts) -> str:
    shown = [member.flat() for member in facts.members]
    columns = list(chain.from_iterable((name, name + RATIO) for name in facts.dense))
    ends = [name + end for name in facts.measured for end in (LOW, HIGH)]
    columns += [*facts.measured, *(end for end in ends if all(end in row for row in shown))]
    columns += [SELECT + name for name in facts.measured]
    columns += [name for name in ("emptied",) if all(name in row for row in shown)]
    rows: list[list[Cell]] = [
        [index, *(row[name] for name in columns), facts.pick(member)]
        for index, (row, member) in enumerate(zip(shown, facts.members, strict=True), start=1)
    ]
    return table(["", *(name.replace("_", " ") for name in columns), "pick"], rows, "front")


def _middle_pick(facts: RunFacts) -> str:
    picks = [pick for pick in map(facts.pick, facts.members) if pick is not None]
    return picks[len(picks) // 2] if picks else f"{facts.cost}<=0.5"


def allocation(facts: RunFacts) -> str:
    """The kept counts of each unit in each member, as a heat map."""
    if not facts.members:
        return section("Allocation", note(EMPTY))
    most = max(2, CELLS // len(facts.space.units))
    chosen = np.linspace(0, len(facts.members) - 1, min(most, len(facts.members))).round().astype(int).tolist()
    widths = [counts[0] for counts in facts.space.levels]
    lines = [
        _unit_line(unit, width, [facts.members[index].counts[unit] for index in chosen])
        for unit, width in zip(facts.space.units, widths, strict=True)
    ]
    missing = f"{len(chosen)} of {len(facts.members)} members are shown." if len(chosen) < len(facts.members) else ""
    return section(
        "Allocation",
        note(
            f"Kept positions of each searched unit (rows) in each member of the front (columns, by number and share of "
            f"the {facts.cost} in %). The stronger the colour, the more of the unit is kept.",
            missing,
        ),
        '<div class="wide"><table class="heat">',
        _member_heads(facts, [(index, facts.members[index]) for index in chosen]),
        "<tbody>",
        *lines,
        "</tbody></table></div>",
    )


def _member_heads(facts: RunFacts, members: Sequence[tuple[int, Member]]) -> str:
    heads = "".join(
        f'<th scope="col">{index + 1}<br><span>{100 * member.ratios[facts.cost]:.0f}</span></th>'
        for index, member in members
    )
    return f'<thead><tr><th scope="col">unit</th><th scope="col">width</th>{heads}</tr></thead>'


def _unit_line(unit: str, width: int, kept: Sequence[int]) -> str:
    name = escape(unit)
    cells = "".join(
        f'<td class="{_ink(count / width)}" style="--k:{count / width:.2f}" '
        f'title="{name}: {count} of {width}">{count}</td>'
        for count in kept
    )
    return f'<tr><th scope="row">{name}</th><td>{width}</td>{cells}</tr>'


def _ink(share: float) -> str:
    """The style of a count, so that it is readable on its background."""
    return "most" if share > 0.55 else "some"


def progress(facts: RunFacts) -> str:
    """The section on the hypervolume over evaluations."""
    title = "Hypervolume over evaluations"
    grown = growth(facts)
    if not grown.points:
        return section(title, note("No evaluation succeeded, so nothing is covered."))
    x = ChartAxis.over("evaluations", [0.0, *(x for x, _ in grown.points)])
    y = ChartAxis.over("hypervolume, 1 is all", [0.0, *(y for _, y in grown.points)])
    chart = Chart(x, y)
    last = grown.points[-1]
    tip = f"{number(last[1])} after {plural(int(last[0]), 'evaluation')}"
    picture = chart.draw(
        f"Hypervolume over evaluations: {tip}",
        chart.line(grown.points, "member"),
        chart.marks([last], [tip], "member"),
    )
    return section(
        title,
        picture,
        note(
            f"{tip}, of the objectives of the search, on the selection set. The reference point is "
            f"{', '.join(grown.reference)}; every other objective than a cost is scaled from its best value (0) "
            "to its worst (1), so the figure compares points in time of this run, not different runs."
        ),
    )


def audit(facts: RunFacts) -> str:
    """The section on the agreement of the selection set with the report set."""
    title = "Proxy audit"
    found = audits(facts) if facts.members else []
    if not found:
        return section(title, note(EMPTY if not facts.members else "The fitness measures nothing on both sets."))
    rows: list[list[Cell]] = [
        [SELECT + a.selected, a.reported, None if math.isnan(a.tau) else a.tau, a.optimism] for a in found
    ]
    own = next(a for a in found if a.selected == a.reported)
    return section(
        title,
        _audit_chart(own),
        table(["on the selection set", "on the report set", "Kendall's tau", "mean optimism"], rows),
        note(
            f"Over {plural(len(facts.members), 'member')} of the front. Tau is 1 where both sets rank the members "
            "alike, ties apart, and high on any front whose members differ much in size. The optimism is the amount by "
            "which the selection set looks better than the report set (selection minus report if higher is better, "
            "report minus selection if lower is better): the bias of values that the members were selected by."
        ),
        note(f"Do damages add up? {facts.additivity}.") if facts.additivity else "",
    )


def _audit_chart(audited: Audit) -> str:
    values = list(chain.from_iterable(audited.pairs))
    x = ChartAxis.over(f"{audited.selected} on the selection set", values)
    y = ChartAxis.over(f"{audited.reported} on the report set", values)
    chart = Chart(x, y)
    same: list[Point] = [(x.low, x.low), (x.high, x.high)]
    tips = [f"selection {number(x)}, report {number(y)}" for x, y in audited.pairs]
    return legend({"member": "members of the front", "dense": "no optimism"}) + chart.draw(
        f"{audited.reported} of the front's members on the report set over that on the selection set",
        chart.line(same, "dense"),
        chart.marks(audited.pairs, tips, "member"),
    )
