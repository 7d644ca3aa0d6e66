"""The columns of a front's table, and the names that remain for costs and measurements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from autoprune.core.objective import NAMED, Objective, is_name
from autoprune.errors import ConfigError

SELECT = "select_"  # prefix of values of the built network, measured on the selection set
SEARCH = "search_"  # prefix of values measured on the selection set during the search, before compensation
LOW, HIGH = "_low", "_high"  # suffixes of the ends of an interval
HARM = ("agreement", "recall_worst", "recall_drop", "intensification", "flipped")  # of Member.harm, as columns
CAUTIOUS = ("agreement",)  # values that a pick compares by the lower end of their interval
RATIO = "_ratio"  # suffix of a cost as a share of the dense network's

ROW = (
    "candidate",
    "density",
    "verify_error",
    "finetune_steps",
    "emptied",
    "emptied_weights",
    "levels",
    "kept",
    "fit",
    "solved",
    "harm",
    "recovered",
)
EVALUATION = ("fidelity", "status", "cause", "seconds", "worker", "examples", "parts", "steps")  # of a study
OWN = frozenset((*ROW, *EVALUATION))


def clashes(names: Iterable[str], costs: Collection[str]) -> list[str]:
    """Clauses with the reason for each name that a measured value cannot have, given the names of costs."""
    names = list(names)
    taken = [f"{name!r} is the name of a cost" for name in names if name in costs]
    return [*taken, *_clashes_with_columns(names, costs)]


def check_measured(names: Iterable[str], costs: Collection[str]) -> None:
    """Raises ConfigError if a fitness reports the name of a cost or a column."""
    if found := clashes(names, costs):
        raise ConfigError(
            f"expected the fitness to report names of its own, but {'; '.join(found)}. Report them under other names."
        )


def check_named(costs: Sequence[str], own: Iterable[str], objectives: Sequence[Objective], guide: str | None) -> None:
    """Raises ConfigError, with every mistake, if the user's `own` costs, objectives or guide have names in use.

    `costs` are the names of all costs, including `own`.
    """
    named = [o.name for o in objectives]
    measured = [name for name in dict.fromkeys(named) if name not in costs]
    problems = [f"cost {clause}" for clause in _clashes_with_columns(own, costs)]
    problems += [f"objective {clause}" for clause in _clashes_with_columns(measured, costs)]
    problems += [f"objective {name!r} is given {count} times" for name, count in Counter(named).items() if count > 1]
    if guide is not None:
        problems += [f"the guide {clause}" for clause in clashes([guide], costs)]
    if problems:
        raise ConfigError([f"{problem}. Rename or remove it." for problem in problems])


def _clashes_with_columns(names: Iterable[str], costs: Collection[str]) -> list[str]:
    names = list(names)
    ratios = {cost + RATIO for cost in costs}
    ends = {name + end for name in names for end in (LOW, HIGH)}
    found = []
    for name in names:
        if not is_name(name):
            found.append(f"{name!r} is no name of {NAMED}")
        elif name in OWN or name in ratios:
            found.append(f"{name!r} is a column of the front's table")
        elif name.startswith((SELECT, SEARCH)):
            found.append(f"{name!r} begins like the columns of values on the selection set")
        elif name in ends:
            found.append(f"{name!r} is the column of an end of the interval of {name.rpartition('_')[0]!r}")
    return found
