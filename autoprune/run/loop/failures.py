"""The message about a search in which most evaluations failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from autoprune.core.evaluation import Evaluation

MOST = 0.5  # share of failed evaluations above which the message is shown
SHOWN_CAUSES = 3  # different causes in the message
LENGTH = 200  # characters of each cause


def most_failed(told: Iterable[Evaluation]) -> str:
    """A message with the first causes if more than half of the evaluations failed or timed out; else ""."""
    tried = [evaluation for evaluation in told if evaluation.status != "infeasible"]
    causes = Counter(evaluation.cause for evaluation in tried if evaluation.status != "ok")
    failed = sum(causes.values())
    if failed <= MOST * len(tried):
        return ""
    first = "; ".join(f"{count} times {cause[:LENGTH]}" for cause, count in list(causes.items())[:SHOWN_CAUSES])
    return (
        f"{failed} of {len(tried)} evaluations failed, so the front has only the others: {first}. Fix the cause and "
        "search again."
    )
