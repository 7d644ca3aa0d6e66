"""The names a job uses for what is measured, held against what its fitness and its costs report."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from autoprune.core.objective import Bound, Objective
from autoprune.core.sparse import SPARSE_COSTS
from autoprune.run.session.limits import one_of

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
    """The key and a sentence for each name that is neither a measurement nor a cost.

    `reported` are the measurements; None where they are not known yet, as for a fitness of the user's own before it has
    measured the dense network: then nothing is wrong. `costs` are those of the job's own.
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
    """("search", "guide") as search.guide."""
    return ".".join(map(str, path))
