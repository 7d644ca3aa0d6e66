"""The output of the command line: tables, numbers and progress. It holds no logic beyond formatting."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from autoprune.run.records.columns import RATIO
from autoprune.run.results.front_file import to_csv

if TYPE_CHECKING:
    from autoprune.core.unit import Unit
    from autoprune.run import Inspection
    from autoprune.run.inspection import FrozenGroup
    from autoprune.run.results.front_file import LeftOut
    from autoprune.run.results.member import Member
    from autoprune.run.session.job import Progress

WIDE = 160  # the width where the output is no terminal: a pipe has no width, and a truncated number is useless
LABEL = 12  # the least width of the column of candidates; longer names continue in the next line
SHARES = ("verify_error", "density", "_ratio")  # endings of columns that follow from others or are almost zero
LISTED = 20  # the most units of a kind, and the most reasons for frozen parts, that are printed; the JSON file has all


class _Output(Console):
    """A console that lets the command end when nothing reads its output any more, as after `| head`."""

    def on_broken_pipe(self) -> NoReturn:
        self.quiet = True
        raise


def output() -> Console:
    """A console on standard output: as wide as the terminal or, where there is none, as COLUMNS says, else WIDE."""
    columns = os.environ.get("COLUMNS", "")
    piped = int(columns) if columns.isdecimal() and int(columns) > 0 else WIDE
    return _Output(width=None if sys.stdout.isatty() else piped, highlight=False)


def shown(value: float | int | str) -> str:
    """Formats a value for a table: separated thousands, four decimals, and an exponent if those would be zeros."""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, int) or value == 0 or (value.is_integer() and abs(value) >= 2):
        return f"{int(value):,}"
    if 0 < abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.1f}"


def print_members(members: Sequence[Member], form: str = "table", numbers: Sequence[int] = ()) -> None:
    """Prints members of a front on standard output, as table, csv or json; `numbers` are the rows that a pick names."""
    if form == "json":
        print(json.dumps([member.to_json() for member in members], indent=2))
    elif form == "csv":
        print(to_csv(members), end="")
    else:
        screen = output()
        screen.print(f"{len(members)} network{'' if len(members) == 1 else 's'}")
        _print_table(screen, members, numbers)
        for member in members:
            if member.solved is not None:
                screen.print(member.solved["why"])


def print_recovered(members: Sequence[Member]) -> None:
    """Prints recovered networks, if there are any, under the names of their recoveries, with a remark on each."""
    if not members:
        return
    facts = [dict(member.recovered or {}) for member in members]
    screen = output()
    screen.print(f"{len(members)} recovered network{'' if len(members) == 1 else 's'}")
    named = [replace(member, candidate=own["name"]) for member, own in zip(members, facts, strict=True)]
    _print_table(screen, named, ())
    for own in facts:
        print(f"{own['name']}: {own['steps']:,} steps; {own['remark']}")


def print_dense(members: Sequence[Member]) -> None:
    """Prints the dense network's measurements on the report set, if it is on the front; accuracies are in per cent."""
    dense = next((member for member in members if member.is_dense), None)
    if dense is not None:
        other = {"candidate", "verify_error", *dense.costs, *(name + RATIO for name in dense.costs)}
        texts = [f"{name} {_measured(dense, name)}" for name in dense.summary() if name not in other]
        print(f"dense:  {', '.join(texts)}")


def print_left_out(left_out: Sequence[LeftOut]) -> None:
    """Prints the networks that were left out of the front with their causes, one line each."""
    for member in left_out:
        print(f"left out of the front: {member.candidate}: {member.cause}")


def _measured(member: Member, name: str) -> str:
    """Formats a value of a network; an accuracy is in per cent, with its confidence interval if it has one."""
    if name != "accuracy":
        return shown(member[name])
    ends = [f"{100 * end:.2f}" for end in member.intervals.get(name, ())]
    return f"{100 * member.report[name]:.2f} %" + (f" ({' to '.join(ends)})" if ends else "")


def cells(member: Member) -> dict[str, str]:
    """The values of a member for a table, by column; a confidence interval follows its value, in three decimals."""
    found = {name: shown(value) for name, value in member.summary().items()}
    for name, (low, high) in member.intervals.items():
        found[name] += f" ({low:.3f}-{high:.3f})"
    return found


def _print_table(screen: Console, members: Sequence[Member], numbers: Sequence[int]) -> None:
    """Prints a table with one row per network and one column per value, without truncating a number.

    Values that all networks share are printed below the table. If the rest is too wide for the screen, columns are
    left out.
    """
    found = [cells(member) for member in members]
    names = dict.fromkeys(name for row in found for name in row) or ["candidate"]
    columns = {name: [row.get(name, "-") for row in found] for name in names}
    labels = columns.pop("candidate")
    alike = [name for name, cells in columns.items() if len(cells) > len(set(cells)) == 1]
    same = {name: columns.pop(name)[0] for name in alike}
    aside = 3 + len(str(max(numbers))) if numbers else 0  # the width of the row numbers
    widths = _widths(columns, screen.width - aside)
    screen.width = max(screen.width, _needed(widths) + aside)
    room = LABEL + screen.width - _needed(widths) - aside
    table = Table()
    if numbers:
        table.add_column("#", justify="right")
    table.add_column("candidate", width=min(room, max(map(len, ["candidate", *labels]))))
    for name, width in widths.items():
        table.add_column(name, justify="right", overflow="fold", width=width)
    first = [[str(number) for number in numbers]] if numbers else []
    for row in zip(
        *first, [_folded(label, room) for label in labels], *(columns[name] for name in widths), strict=True
    ):
        table.add_row(*row)
    screen.print(table)
    if same:
        screen.print(f"in all of them: {', '.join(f'{name} {value}' for name, value in same.items())}")
    if len(widths) < len(columns):
        screen.print(f"no room for {', '.join(name for name in columns if name not in widths)}; --format csv has all")


def _folded(label: str, room: int) -> str:
    """Breaks a candidate's name into lines of at most `room` characters, none of which ends inside a number."""
    lines = [""]
    for part in label.replace("-", "- ").split():
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def _widths(columns: Mapping[str, Sequence[str]], room: int) -> dict[str, int]:
    """The widths of the columns that fit, at least one; columns of SHARES are dropped first, then from the right."""
    widths = {name: max(map(len, [name, *cells])) for name, cells in columns.items()}
    if _needed(widths) > room:  # names continue in the next line
        widths = {name: max(map(len, cells)) for name, cells in columns.items()}
    last_first = list(widths)[::-1]
    for name in sorted(last_first, key=lambda name: not name.endswith(SHARES)):
        if _needed(widths) > room and len(widths) > 1:
            del widths[name]
    return widths


def _needed(widths: Mapping[str, int]) -> int:
    """The width of a table of candidates whose columns of values have the given widths."""
    return LABEL + sum(widths.values()) + 3 * (len(widths) + 1) + 1


def print_inspection(inspection: Inspection) -> None:
    """Prints units and levels by kind, the reach of every cost, frozen parts with reasons, and uncounted operators."""
    console = output()
    for kind in inspection.kind_shares:
        _print_kind(console, inspection, kind)
    if any(unit.normalised for unit in inspection.units):
        console.print(
            "norm: a normalisation or another reduction runs over the unit's positions, so removal changes it"
        )
    console.print()
    console.print(_reach_table(inspection))
    _print_frozen(console, inspection)
    uncounted = ", ".join(inspection.uncounted) or "none"
    console.print(f"operators whose MACs no rule counts: {escape(uncounted)}")
    _print_unmet(console, inspection)
    for note in inspection.notes:
        console.print(f"note: {escape(note)}")
    searched = f"{len(inspection.levels)} of {len(inspection.units)} units"
    console.print(f"search space: {_count(inspection.space_size)} networks over {searched}")
    console.print(inspection.forecast.text())
    for problem in inspection.forecast.problems:
        console.print(f"note: a run will not start: {escape(problem)}")


def _count(number: int) -> str:
    """Formats a count; from a million on as a power of ten, without converting it to a float, which may overflow."""
    digits = str(number)
    return f"{number:,}" if number < 10**6 else f"{digits[0]}.{digits[1]}e{len(digits) - 1}"


def _print_kind(console: Console, inspection: Inspection, kind: str) -> None:
    """Prints a summary of a kind in one line, and its units with the largest shares of the MACs."""
    units, shares = inspection.of_kind(kind), inspection.kind_shares[kind]
    searched = sum(unit.name in inspection.levels for unit in units)
    console.print(
        f"{escape(kind)}: {_units(len(units))}, {sum(unit.width for unit in units):,} positions, {searched} searched; "
        f"together {shares['macs']:.1%} of the MACs and {shares['params']:.1%} of the parameters"
    )
    console.print(_units_table(inspection, units[:LISTED]))
    if len(units) > LISTED:
        console.print(f"{_units(len(units) - LISTED)} more with smaller shares of the MACs; --json FILE writes all")


def _units(count: int) -> str:
    return f"{count} unit{'' if count == 1 else 's'}"


def _units_table(inspection: Inspection, units: Sequence[Unit]) -> Table:
    table = Table()
    table.add_column("unit", overflow="fold")
    for name in ("width", "least"):
        table.add_column(name, justify="right")
    table.add_column("kept counts searched")
    for name in ("modules", "of MACs", "of params"):
        table.add_column(name, justify="right")
    table.add_column("norm")
    for unit in units:
        levels, shares = inspection.levels.get(unit.name), inspection.shares[unit.name]
        table.add_row(
            escape(unit.name),
            str(unit.width),
            str(unit.least),
            _levels(levels) if levels else "dense: no rule gives it a choice",
            str(len(unit.modules)),
            f"{shares['macs']:.1%}",
            f"{shares['params']:.1%}",
            "norm" if unit.normalised else "",
        )
    return table


def _levels(counts: Sequence[int]) -> str:
    """Formats kept counts; of more than eight, only the first and last ones and their number."""
    if len(counts) <= 8:
        return " ".join(map(str, counts))
    return f"{' '.join(map(str, counts[:4]))} ... {counts[-2]} {counts[-1]} ({len(counts)} levels)"


def _some(names: Sequence[str], most: int = 4) -> str:
    """Formats the first names and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _reach_table(inspection: Inspection) -> Table:
    table = Table(title="reachable costs", title_justify="left")
    for name in ("cost", "least", "dense", "least / dense"):
        table.add_column(name, justify="left" if name == "cost" else "right")
    for name, (least, dense) in inspection.reach.items():
        table.add_row(escape(name), shown(least), shown(dense), f"{least / dense:.4f}" if dense else "-")
    return table


def _print_frozen(console: Console, inspection: Inspection) -> None:
    """Prints the frozen share, and the frozen parts by reason."""
    parts, groups = len(inspection.frozen), inspection.frozen_by_reason()
    console.print(f"frozen: {inspection.frozen_share:.1%} of the MACs in {parts} part{'' if parts == 1 else 's'}")
    if groups:
        console.print(_frozen_table(groups[:LISTED]))
    if len(groups) > LISTED:
        console.print(f"{len(groups) - LISTED} more reasons with smaller shares; --json FILE writes all")


def _print_unmet(console: Console, inspection: Inspection) -> None:
    """Prints the parameters that no example call runs, by module, with their share of all parameters."""
    shares: dict[str, float] = {}
    for row in inspection.unmet:
        module = row.name.rpartition(".")[0] or row.name
        shares[module] = shares.get(module, 0.0) + row.share
    if shares:
        console.print(
            f"parameters that no example call runs: {sum(shares.values()):.1%} of all; dimensions of the same size "
            "stay whole. Add example calls that run them, or remove them from the model"
        )
        console.print(_unmet_table(sorted(shares.items(), key=lambda pair: -pair[1])[:LISTED]))
    if len(shares) > LISTED:
        console.print(f"{len(shares) - LISTED} more modules with smaller shares; --json FILE writes all")


def _unmet_table(shares: Sequence[tuple[str, float]]) -> Table:
    table = Table()
    table.add_column("of parameters", justify="right")
    table.add_column("not run", overflow="fold")
    for module, share in shares:
        table.add_row(f"{share:.1%}", escape(module))
    return table


def _frozen_table(groups: Sequence[FrozenGroup]) -> Table:
    table = Table()
    for name in ("of MACs", "parts", "what", "why"):
        table.add_column(name, justify="right" if name in ("of MACs", "parts") else "left", overflow="fold")
    for group in groups:
        table.add_row(f"{group.share:.1%}", str(len(group.parts)), escape(_some(group.parts)), escape(group.reason))
    return table


@contextmanager
def progress_display(
    quiet: bool, plain: bool = False, stream: TextIO | None = None
) -> Iterator[Callable[[Progress], None]]:
    """Yields a callback that shows progress on standard error: bars on a terminal, else a line per tenth of a phase.

    If `plain` is true, lines are printed on a terminal, too.
    """
    stream = stream or sys.stderr
    if quiet:
        yield lambda progress: None
    elif stream.isatty() and not plain:
        with _bars(stream) as bars:
            yield _BarReport(bars)
    else:
        yield _LineReport(stream)


@contextmanager
def bars_where_seen(stream: TextIO | None = None) -> Iterator[Callable[[Progress], None]]:
    """Yields a callback that shows progress bars in a terminal and in a notebook, and nothing elsewhere."""
    stream = stream or sys.stderr
    if stream.isatty() or Console(file=stream).is_jupyter:
        with _bars(stream) as bars:
            yield _BarReport(bars)
    else:
        yield lambda progress: None


class _RateColumn(ProgressColumn):
    """A column with the steps per second of a phase of more than one step."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g}/s" if task.speed and task.total and task.total > 1 else "")


def _bars(stream: TextIO) -> Bars:
    columns = (
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        _RateColumn(),
        TextColumn("{task.fields[message]}", markup=False),
    )
    return Bars(*columns, console=Console(file=stream))


class _BarReport:
    """Shows one bar for each phase, in the order in which the phases begin."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        if "\n" in progress.message:  # a table does not fit beside a bar
            self._bars.console.print(progress.message, markup=False, highlight=False)
            progress = replace(progress, message="")
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._bars.add_task(progress.phase, message="")
        task = self._tasks[progress.phase]
        self._bars.update(task, completed=progress.done, total=progress.total, message=progress.message)


class _LineReport:
    """Prints a line when a phase begins, when it ends, and after every tenth of its steps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tenths: dict[str, int] = {}
        self._began: dict[str, tuple[float, int]] = {}

    def __call__(self, progress: Progress) -> None:
        began, first = self._began.setdefault(progress.phase, (time.monotonic(), progress.done))
        tenth = 10 * progress.done // progress.total if progress.total else 10
        if tenth <= self._tenths.get(progress.phase, -1):
            return
        self._tenths[progress.phase] = tenth
        seconds = time.monotonic() - began
        line = f"{progress.phase} {progress.done}/{progress.total}, {seconds:.0f} s"
        if progress.done > first and progress.done < progress.total:
            rate = (progress.done - first) / seconds
            line += f", {rate:.3g}/s, {(progress.total - progress.done) / rate:.0f} s left"
        if "\n" in progress.message:  # a table
            line = f"{line}\n{progress.message}"
        elif progress.message:
            line = f"{line}, {progress.message}"
        print(line, file=self._stream, flush=True)
