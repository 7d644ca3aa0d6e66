"""The section on the audit of the guide, in runs that were audited."""

from __future__ import annotations

from autoprune.run.report.facts import RunFacts
from autoprune.run.report.markup import Cell, note, section, table


def guide_audit(facts: RunFacts) -> str:
    """What values before training tell of the networks after it; empty without an audit."""
    found = facts.guide_audit
    if found is None:
        return ""
    rows: list[list[Cell]] = [
        [a.before, a.after, a.tau, a.low, a.high, a.p, a.counterexamples, a.same_widths, a.verdict]
        for a in found.agreements
    ]
    head = ["before training", "after training", "Kendall's tau", "low", "high", "p", "counterexamples"]
    return section(
        "Audit of the guide",
        note(f"{found.setting}."),
        table([*head, "tau at the same widths", "verdict"], rows),
        *(note(sentence) for sentence in found.sentences),
        note(
            "Tau is 1 where a value before training, on the selection set, orders the networks as they are ordered "
            "after it, on the report set; its interval is from resamples of the networks. Counterexamples are pairs "
            "whose order is reversed by more than twice the noise of the seeds."
        ),
    )
