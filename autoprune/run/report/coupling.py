"""The picture of the coupling: a row for each unit, a column for each module, and marks where they touch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import chain

from autoprune.core.unit import Role, Unit
from autoprune.run.report.facts import RunFacts
from autoprune.run.report.markup import note, plural, section

CELL = 18  # pixels of a row and of a column
CHARACTER = 6.8  # pixels of a label's character, in the widest of the monospaced fonts that style.css names
LABEL_CHARACTERS = 36  # largest number of characters of a label
GAP = 8  # pixels around a label
ITSELF = "(the model)"  # the column of tensors that the model itself holds


@dataclass(frozen=True)
class Mark:
    """The look of a role: its colour (style.css), shape (an SVG path from the centre) and letter."""

    letter: str
    verb: str
    shape: str


MARKS: Mapping[str, Mark] = {
    "out": Mark("P", "produces", "m-7-7h14v14h-14z"),
    "in": Mark("C", "consumes", "m-7.5 0a7.5 7.5 0 1 1 15 0a7.5 7.5 0 1 1-15 0z"),
    "along": Mark("A", "runs along", "m0-8.5l8.5 8.5l-8.5 8.5l-8.5-8.5z"),
    "both": Mark("B", "produces and consumes", "m-4-8h8l4.5 8l-4.5 8h-8l-4.5-8z"),
}

Touch = Mapping[Role, Sequence[str]]  # role -> names of tensors within one module


def coupling(facts: RunFacts) -> str:
    """The section that shows which unit touches which module, and how."""
    kinds = _kinds(facts.units)
    touches = {unit.name: touched(unit) for unit in facts.units}
    modules = [name for name in facts.modules if any(name in found for found in touches.values())]
    left_out = len(facts.modules) - len(modules)
    return section(
        "Coupling",
        note(
            f"{plural(len(facts.units), 'unit')} (rows, by kind) and {plural(len(modules), 'module')} they touch "
            "(columns, in the order the model lists them). The positions of a unit stay or go together in every module "
            "of its row. A mark's tooltip names the tensors.",
            f"Left out: {plural(left_out, 'module')} with tensors that no unit touches." if left_out else "",
        ),
        _legend({mark_of(touch) for found in touches.values() for touch in found.values()}),
        Map(kinds, touches, modules, frozenset(facts.space.units)).draw(),
    )


def _kinds(units: Iterable[Unit]) -> dict[str, list[Unit]]:
    kinds: dict[str, list[Unit]] = {}
    for unit in units:
        kinds.setdefault(unit.kind, []).append(unit)
    return kinds


def touched(unit: Unit) -> dict[str, Touch]:
    """The roles of a unit in each module, with the names of the tensors."""
    found: dict[str, dict[Role, dict[str, None]]] = {}
    for slot in unit.slots:
        module, _, tensor = slot.tensor.rpartition(".")
        found.setdefault(module, {}).setdefault(slot.role, {})[tensor] = None
    return {module: {role: tuple(names) for role, names in roles.items()} for module, roles in found.items()}


def mark_of(touch: Touch) -> str:
    """The mark for all roles of a unit in a module; producing and consuming take precedence over running along."""
    if {"out", "in"} <= touch.keys():
        return "both"
    return next(role for role in ("out", "in", "along") if role in touch)


@dataclass(frozen=True)
class Map:
    """The map of units and modules: rows under a heading for each kind, columns, and marks.

    It has four pictures, so that labels stay visible when the marks are scrolled, and marks have a fixed size.
    """

    kinds: Mapping[str, Sequence[Unit]]
    touches: Mapping[str, Mapping[str, Touch]]
    modules: Sequence[str]
    searched: frozenset[str]

    def draw(self) -> str:
        head = f'<div class="map-head">{self._corner()}{self._columns()}</div>'
        return f'<div class="map">{head}<div class="map-body">{self._labels()}{self._marks()}</div></div>'

    @property
    def _lines(self) -> Iterator[tuple[float, str | Unit]]:
        """The vertical middle of every line, with its kind or unit."""
        lines: list[str | Unit] = []
        for kind, units in self.kinds.items():
            lines += [kind, *units]
        return ((_middle(index), line) for index, line in enumerate(lines))

    @property
    def _size(self) -> tuple[int, int]:
        """The width of all columns and the height of all lines, in pixels."""
        return CELL * len(self.modules), CELL * (len(self.kinds) + sum(map(len, self.kinds.values())))

    @cached_property
    def _side(self) -> tuple[int, int]:
        """The width of the labels of units, with their widths, and the height of the labels of modules, in pixels."""
        units = list(chain.from_iterable(self.kinds.values()))
        names = max(len(text) for text in ("unit", *map(self._title, self.kinds), *(_short(u.name) for u in units)))
        digits = max(len("width"), *(len(str(unit.width)) for unit in units))
        columns = max(len(_short(_module(module))) for module in self.modules)
        return _pixels(names + digits) + 3 * GAP, _pixels(columns) + 2 * GAP

    def _corner(self) -> str:
        width, height = self._side
        y = height - GAP
        texts = f'<text x="{GAP}" y="{y}">unit</text><text class="end" x="{width - GAP}" y="{y}">width</text>'
        return _svg("map-side", width, height, texts)

    def _columns(self) -> str:
        y = self._side[1] - GAP
        labels = (
            f'<text x="{_middle(index)}" y="{y}" transform="rotate(-90 {_middle(index)} {y})">'
            f"{escape(_short(_module(module)))}<title>{escape(_module(module))}</title></text>"
            for index, module in enumerate(self.modules)
        )
        return _svg("map-columns", self._size[0], self._side[1], "".join(labels))

    def _labels(self) -> str:
        parts = (self._heading(y, x) if isinstance(x, str) else self._label(y, x) for y, x in self._lines)
        return _svg("map-side", self._side[0], self._size[1], "".join(parts))

    def _heading(self, y: float, kind: str) -> str:
        return f'<text class="kind" x="{GAP}" y="{y}">{escape(self._title(kind))}</text>'

    def _title(self, kind: str) -> str:
        return f"{kind} ({len(self.kinds[kind])})"

    def _label(self, y: float, unit: Unit) -> str:
        facts = [f"{unit.kind}, {unit.width} wide, at least {unit.least}"]
        facts += ["a normalisation runs over its positions"] if unit.normalised else []
        facts += [] if unit.name in self.searched else ["not searched"]
        tip = escape(f"{unit.name}: {', '.join(facts)}")
        return (
            f'<text x="{GAP}" y="{y}">{escape(_short(unit.name))}<title>{tip}</title></text>'
            f'<text class="end" x="{self._side[0] - GAP}" y="{y}">{unit.width}</text>'
        )

    def _marks(self) -> str:
        width, height = self._size
        columns = "".join(f"M{_middle(index)} 0V{height}" for index in range(len(self.modules)))
        rows = (self._row(y, unit) for y, unit in self._lines if isinstance(unit, Unit))
        units = sum(map(len, self.kinds.values()))
        label = f"Which of {plural(units, 'unit')} touches which of {plural(len(self.modules), 'module')}"
        return _svg("map-marks", width, height, f'<path class="grid" d="{columns}"/>{"".join(rows)}', label)

    def _row(self, y: float, unit: Unit) -> str:
        """The marks of a unit on a line from the first to the last; their letters are one text element."""
        found = self.touches[unit.name]
        places = {module: _middle(index) for index, module in enumerate(self.modules) if module in found}
        marks = {module: mark_of(found[module]) for module in places}
        drawn = "".join(
            f'<path class="{marks[module]}" d="M{x} {y}{MARKS[marks[module]].shape}">'
            f"<title>{escape(_tip(unit, module, found[module]))}</title></path>"
            for module, x in places.items()
        )
        xs = list(places.values())
        letters = "".join(MARKS[mark].letter for mark in marks.values())
        return (
            f'<g><rect y="{y - CELL / 2}" width="{self._size[0]}" height="{CELL}"/>'
            f'<path class="row" d="M{xs[0]} {y}H{xs[-1]}"/>{drawn}'
            f'<text x="{" ".join(map(str, xs))}" y="{y}">{letters}</text></g>'
        )


def _tip(unit: Unit, module: str, touch: Touch) -> str:
    done = (f"{MARKS[role].verb} {', '.join(names)}" for role, names in touch.items())
    return f"{unit.name} in {_module(module)}: {'; '.join(done)}"


def _legend(used: Collection[str]) -> str:
    items = (
        f'<li><svg class="map-key" viewBox="-9 -9 18 18"><path class="{style}" d="M0 0{mark.shape}"/>'
        f'<text x="0" y="0">{mark.letter}</text></svg>{mark.verb}</li>'
        for style, mark in MARKS.items()
        if style in used
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _svg(style: str, width: int, height: int, parts: str, label: str = "") -> str:
    role = f' role="img" aria-label="{escape(label)}"' if label else ""
    return f'<svg class="{style}" width="{width}" height="{height}"{role}>{parts}</svg>'


def _middle(index: int) -> float:
    return CELL * (index + 0.5)


def _module(name: str) -> str:
    return name or ITSELF


def _short(name: str) -> str:
    """The end of a name that is too long, as names of modules differ at the end."""
    return name if len(name) <= LABEL_CHARACTERS else f"\N{HORIZONTAL ELLIPSIS}{name[1 - LABEL_CHARACTERS :]}"


def _pixels(characters: int) -> int:
    return round(characters * CHARACTER)
