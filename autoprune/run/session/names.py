"""Compares the names in a job with the measurements that its fitness reports and with its costs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from autoprune.core.objective import Bound, Objective
from autoprune.core.options import one_of
from autoprune.core.sparse import SPARSE_COSTS

KeyPath = tuple[str | int, ...]
COSTS = ("macs", "params", *SPARSE_COSTS)


def unknown_names(
    reported: Collection[str] | None,
    objectives: Sequence[Objective],
    guide: str | None,
    target: Sequence[Bound],
    expected: Iterable[str],
    costs: Iterable[str],
) -> list[tuple[KeyPath, str]]:
    """Finds names that are neither a measurement nor a cost.

    Args:
        reported: names of the measurements; None if they are not known yet, as for a user's fitness before it has
            measured the dense network. No name is wrong then.
        objectives: the objectives of the job.
        guide: its guide.
        target: the bounds of its target.
        expected: names of the dense network's expected values.
        costs: names of the job's own costs.

    Returns:
        The key and a message for each unknown name.
    """
    if reported is None:
        return []
    named: list[tuple[KeyPath, str]] = [(("objectives", i, "name"), o.name) for i, o in enumerate(objectives)]
    named += [(("search", "guide"), guide)] if guide is not None else []
    named += [(("search", "stop", "target"), bound.name) for bound in target]
    named += [(("expected", name), name) for name in expected]
    known = list(dict.fromkeys((*reported, *COSTS, *costs)))
    return [(path, sentence) for path, name in named for sentence in one_of(name, known)]


def dotted(path: KeyPath) -> str:
    """The path ("search", "guide") as the text "search.guide"."""
    return ".".join(map(str, path))
