"""What is said of a search in which most evaluations failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from autoprune.core.evaluation import Evaluation

MOST = 0.5  # of the networks that were tried
CAUSES = 3  # different ones that are told
LENGTH = 200  # characters of each


def most_failed(told: Iterable[Evaluation]) -> str:
    """A sentence with the first causes where more than half of the evaluations failed or timed out; else empty."""
    tried = [evaluation for evaluation in told if evaluation.status != "infeasible"]
    causes = Counter(evaluation.cause for evaluation in tried if evaluation.status != "ok")
    failed = sum(causes.values())
    if failed <= MOST * len(tried):
        return ""
    first = "; ".join(f"{count} times {cause[:LENGTH]}" for cause, count in list(causes.items())[:CAUSES])
    return (
        f"{failed} of {len(tried)} evaluations failed, so the front is made of what is left: {first}. Mend the cause "
        "and search again."
    )
