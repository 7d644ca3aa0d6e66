"""The page of a report: its head, the summary, and the sections of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from autoprune.core.evaluation import partial_scores
from autoprune.errors import AutopruneError
from autoprune.run.fingerprint.secrets import redacted
from autoprune.run.report import figures
from autoprune.run.report.coupling import coupling
from autoprune.run.report.facts import RunFacts
from autoprune.run.report.guides import guide_audit
from autoprune.run.report.harmed import harmed
from autoprune.run.report.markup import Cell, definition_list, note, percent, plural, section, table
from autoprune.run.report.recovered import recovered

STYLE = Path(__file__).with_name("style.css")
LISTED_CAUSES = 10  # largest number of causes of failure in the list
PARTS = 40  # largest number of frozen parts in the list


def page(facts: RunFacts) -> str:
    """The whole report as one HTML document."""
    drawn = (figures.front_section, figures.allocation, coupling, figures.progress, figures.audit)
    sections = (*drawn, recovered, guide_audit, harmed, frozen, environment)
    title = escape(job_name(facts))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}: autoprune report</title>",
            f"<style>\n{STYLE.read_text()}</style>",
            "</head>",
            "<body>",
            "<main>",
            summary(facts),
            *filter(None, (make(facts) for make in sections)),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def job_name(facts: RunFacts) -> str:
    """The job's name, or the folder's for a job that has none."""
    return str(facts.job.get("name") or facts.path.resolve().name)


def summary(facts: RunFacts) -> str:
    """The summary of the search and its result: a sentence and a few figures."""
    lines = [
        f"<header>\n<p>autoprune report</p>\n<h1>{escape(job_name(facts))}</h1>",
        note(f"{_counted(facts)}. {plural(len(facts.members), 'network')} on the front.", _origin(facts)),
        note(f"{partial}.") if (partial := partial_scores(facts.told)) else "",
        definition_list(_figures(facts), "figures"),
        _left_out(facts),
        _failures(facts),
    ]
    return "\n".join(filter(None, lines)) + "\n</header>"


def _counted(facts: RunFacts) -> str:
    spent, failed = len(facts.spent), sum(facts.causes.values())
    outside = len({e.candidate for e in facts.told if e.status == "infeasible"})
    parts = [f"{plural(spent, 'evaluation')} ({spent - failed:,} ok, {failed:,} failed)"]
    if outside:
        parts.append(f"{plural(outside, 'proposal')} outside the bounds")
    return ", ".join(parts)


def _origin(facts: RunFacts) -> str:
    """The calls in the job, if it was made from a file."""
    made = [(part, _called(facts.job.get(part))) for part in ("model", "data")]
    searcher = _called((facts.job.get("search") or {}).get("searcher"), "name")
    known = [f"{part} {call}" for part, call in [*made, ("searcher", searcher)] if call]
    known += [f"{key} {facts.identity[key]}" for key in ("guide", "seed") if facts.identity.get(key) is not None]
    text = ", ".join(known)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _called(choice: Any, key: str = "call") -> str:
    return str(choice.get(key) or choice.get("call") or "") if isinstance(choice, Mapping) else str(choice or "")


def _figures(facts: RunFacts) -> dict[str, Cell]:
    """The dense network, and the network at half its cost."""
    shown: dict[str, Cell] = {f"dense {name}": value for name, value in facts.dense_values().items()}
    for name in facts.measured[:1]:
        try:
            half = facts.front.picked(f"{facts.cost}<=0.5")
        except AutopruneError:  # no network that small was found
            continue
        shown[f"{name} at half the {facts.cost}"] = half.report[name]
    return shown


def _left_out(facts: RunFacts) -> str:
    """The networks that the front lacks because they could not be built or measured."""
    rows: list[list[Cell]] = [[member.candidate, member.cause] for member in facts.left_out]
    return table(["left out of the front", "why"], rows) if rows else ""


def _failures(facts: RunFacts) -> str:
    if not facts.causes:
        return ""
    rows: list[list[Cell]] = [[cause, count] for cause, count in facts.causes.most_common(LISTED_CAUSES)]
    rest = len(facts.causes) - len(rows)
    return table(["evaluations that failed", "times"], rows) + (note(f"{rest} more causes.") if rest else "")


def frozen(facts: RunFacts) -> str:
    """The section on frozen parts, with reasons, and on operators without a cost rule."""
    parts: Sequence[Sequence[Any]] = facts.environment["frozen"]
    uncounted: Sequence[str] = facts.environment["uncounted_operators"]
    rows: list[list[Cell]] = [[what, percent(share), reason] for what, share, reason in parts[:PARTS]]
    return section(
        "Frozen parts and uncounted operators",
        table(["what", "share of MACs", "why"], rows) if rows else note("Nothing is frozen beside inputs and outputs."),
        note(f"{len(parts) - PARTS} more are in environment.json.") if len(parts) > PARTS else "",
        note(
            f"The MACs leave out operators without a rule: {', '.join(uncounted)}."
            if uncounted
            else "Every operator's MACs are counted."
        ),
        _unmet(facts),
        *(note(sentence) for sentence in facts.environment.get("notes", ())),
        _unfitted(facts),
        _fits(facts),
    )


def _unmet(facts: RunFacts) -> str:
    """The parameters that no example call read, whose sizes are frozen."""
    rows: list[list[Cell]] = [[name, percent(share)] for name, share in facts.environment.get("unmet", ())]
    return table(["parameter that no example call runs", "share of parameters"], rows[:PARTS]) if rows else ""


def _unfitted(facts: RunFacts) -> str:
    """The layers that could not be fitted in some member of the front, with reasons."""
    reasons: dict[str, str] = {}
    for member in facts.members:
        reasons |= (member.fit or {}).get("untouched", {})
    rows: list[list[Cell]] = [[layer, reason] for layer, reason in reasons.items()]
    return table(["layers not fitted to the dense network", "why"], rows[:PARTS]) if rows else ""


def _fits(facts: RunFacts) -> str:
    """How well the layers were fitted, over all members of the front."""
    found = [member.fit for member in facts.members if member.fit and "ridge" in member.fit]
    rows: list[list[Cell]] = []
    for layer in dict.fromkeys(name for fit in found for name in fit["unexplained"]):
        own = [fit for fit in found if layer in fit["unexplained"]]
        ridges = [fit["ridge"][layer] for fit in own if fit["ridge"][layer] is not None]
        left = [fit["unexplained"][layer] for fit in own]
        each = [fit["rows"][layer] / fit["columns"][layer] for fit in own]
        rows.append(
            [layer, _spanned(each), _spanned(ridges) if ridges else "", _spanned(left), f"{len(ridges)} of {len(own)}"]
        )
    head = ["layer", "rows a column", "ridge", "share unexplained on held-out examples", "networks that keep the fit"]
    return table(head, rows) if rows else ""


def _spanned(values: Sequence[float]) -> str:
    """The smallest and the largest value, or the only one."""
    least, most = f"{min(values):.3g}", f"{max(values):.3g}"
    return least if least == most else f"{least} to {most}"


def environment(facts: RunFacts) -> str:
    """The section on the environment, the data and the job."""
    found: Mapping[str, Any] = redacted(facts.environment)
    data: Mapping[str, Any] = found["data"]
    rows: list[list[Cell]] = [[name, entry["examples"], entry["sha256"][:16]] for name, entry in data["sets"].items()]
    shared = [f"{pair} {count}" for pair, count in data["shared"].items()]
    plain = {name: value for name, value in {**found, **data}.items() if isinstance(value, str | int | float)}
    document = yaml.safe_dump(redacted(facts.job), sort_keys=False) if facts.job else "The job was made in Python.\n"
    return section(
        "Environment and data",
        definition_list(plain, "facts"),
        table(["data set", "examples", "sha256, first digits"], rows),
        note(f"Examples in two sets: {', '.join(shared)}." if shared else "No two sets share an example."),
        f"<details><summary>job.yaml</summary><pre>{escape(document)}</pre></details>",
    )
