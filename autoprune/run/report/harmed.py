"""The section on whom pruning harms: recalls by class, agreement with the dense network, flipped examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from autoprune.run.records.columns import HIGH, LOW
from autoprune.run.report.facts import RunFacts
from autoprune.run.report.markup import Cell, note, number, percent, section, table

ALARMING = 0.05  # a drop of a recall above this is flagged
FLAGGED = 10  # largest number of flagged networks in the list
CLASSES = 3  # number of classes with the largest drops that are shown of each network


def harmed(facts: RunFacts) -> str:
    """The section, if the members of the front were measured by class."""
    measured = {member.candidate: member.harm for member in facts.members if member.harm}
    measured |= facts.harms
    if not measured:
        return ""
    head = ["network", "agreement with dense", "least recall", "worst drop of a recall", "intensification", "flipped"]
    return section(
        "Who is harmed",
        table(head, [_row(name, harm) for name, harm in measured.items()]),
        *_flags(measured),
        note(
            "Measured on the report set. The agreement is the share of examples for which a network predicts the class "
            "that the dense network predicts, and needs no labels. The intensification is the slope of the balance of "
            "classes, (recall - accuracy) / accuracy, over that of the dense network: above 1, classes that the dense "
            "network recalls worse than others fall further behind. Flipped examples were right and are now wrong. In "
            "parentheses are 95 % confidence intervals; the worst of many classes looks worse than it is."
        ),
        _worst_classes(measured),
        _in_depth(facts.harms),
        *(note(sentence) for sentence in dict.fromkeys(s for harm in measured.values() for s in harm["notes"])),
        _flips(measured),
    )


def _row(name: str, harm: Mapping[str, Any]) -> list[Cell]:
    least = f"{number(harm['recall_worst'])} (class {harm['recall_worst_class']})" if "recall_worst" in harm else ""
    drop = f"{_with_interval(harm, 'recall_drop')}, class {harm['recall_drop_class']}" if "recall_drop" in harm else ""
    flipped = percent(harm["flipped"]) if "flipped" in harm else ""
    return [name, _with_interval(harm, "agreement"), least, drop, _with_interval(harm, "intensification"), flipped]


def _with_interval(harm: Mapping[str, Any], name: str) -> str:
    if name not in harm:
        return ""
    return f"{number(harm[name])} ({harm[name + LOW]:.3f} to {harm[name + HIGH]:.3f})"


def _flags(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning for each network in which the recall of a class falls by more than ALARMING."""
    alarming = {name: harm for name, harm in measured.items() if harm.get("recall_drop", 0) > ALARMING}
    said = [_flag(name, harm) for name, harm in [*alarming.items()][:FLAGGED]]
    more = len(alarming) - len(said)
    return [*said, *([note(f"So it is in {more} more networks.")] if more else [])]


def _flag(name: str, harm: Mapping[str, Any]) -> str:
    _, _, dense, pruned, low, high = harm["classes"][0]
    chance = " The interval includes 0, so this may be chance." if low <= 0 else ""
    return note(
        f"Warning: in {name} the recall of class {harm['recall_drop_class']} falls from {percent(dense)} to "
        f"{percent(pruned)}, by {100 * harm['recall_drop']:.1f} points (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f}).{chance}"
    )


def _worst_classes(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """The classes, and the groups if there are some, with the largest drops of each network."""
    rows: list[list[Cell]] = [
        [name, f"{kind} {int(row[0])}", int(row[1]), percent(row[2]), percent(row[3]), f"{100 * (row[2] - row[3]):.1f}"]
        for name, harm in measured.items()
        for kind, key in (("class", "classes"), ("group", "groups"))
        for row in harm.get(key, ())[:CLASSES]
        if row[2] > row[3]
    ]
    head = ["network", "where its recall falls most", "examples", "dense", "pruned", "points"]
    return table(head, rows) if rows else ""


def _in_depth(harms: Mapping[str, Mapping[str, Any]]) -> str:
    """What `autoprune harm` measured beyond the recalls."""
    rows: list[list[Cell]] = [[name, *_depth(harm)] for name, harm in harms.items()]
    head = ["network", "accuracy on corrupted inputs", "share of dense", "gap of losses", "loses most", "least spread"]
    return table(head, rows) if rows else ""


def _depth(harm: Mapping[str, Any]) -> list[Cell]:
    corrupted, relative, gap = (harm.get(n) for n in ("corrupted_accuracy", "corrupted_relative", "group_gap"))
    first = harm["losses"][0] if harm.get("losses") else None
    loses = f"group {first['group']}: {first['excess']:.3f} nats" if first else ""
    spread = percent(harm["spread_least"]) + (", collapsed" if harm["collapsed"] else "")
    return [corrupted, "" if relative is None else percent(relative), gap, loses, spread]


def _flips(measured: Mapping[str, Mapping[str, Any]]) -> str:
    """The flipped examples of each network, by their number in the report set."""
    lists = {name: harm["flips"] for name, harm in measured.items() if harm.get("flips")}
    items = "".join(f"<li>{escape(name)}: {_numbers(flips)}</li>" for name, flips in lists.items())
    title = "Examples of the report set that were right and are now wrong, the largest loss first, counted from 0"
    return f"<details><summary>{title}</summary><ul>{items}</ul></details>" if items else ""


def _numbers(flips: Sequence[int]) -> str:
    return ", ".join(map(str, flips))
