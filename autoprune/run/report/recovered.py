"""The section on recovered networks, in runs that have some."""

from __future__ import annotations

from autoprune.run.report.facts import RunFacts
from autoprune.run.report.markup import Cell, note, percent, section, table


def recovered(facts: RunFacts) -> str:
    """The recovered networks before and after their training; empty without any."""
    if not facts.recovered:
        return ""
    rows: list[list[Cell]] = []
    for member in facts.recovered:
        own = dict(member.recovered or {})
        start = own["history"][0]["values"]
        before = [start.get(name) for name in facts.measured]
        after = [value for name in facts.measured for value in (member.select.get(name), member.report.get(name))]
        options = own["options"]
        settings = [options["loss"], options["optimizer"], options["lr"], own["steps"], own["best_step"]]
        rows.append([own["name"], percent(member.ratios[facts.cost]), *settings, *before, *after])
    head = ["recovery", facts.cost, "loss", "optimizer", "rate", "steps", "best step"]
    head += [f"{name} before, selection set" for name in facts.measured]
    head += [f"{name} after, {which} set" for name in facts.measured for which in ("selection", "report")]
    return section(
        "Recovered networks",
        table(head, rows),
        note(
            "Networks of the front that were trained further. The best network on the selection set is kept, which may "
            "be the one before training; the report set is measured once, after it."
        ),
    )
