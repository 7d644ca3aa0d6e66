"""What follows from a forecast: the size of the front, and what would make a long search shorter."""

from __future__ import annotations

from autoprune.measure.form import Form
from autoprune.run.forecast.forecast import time_text
from autoprune.run.session.job import FRONT_SIZES, Job, NamedSearcher
from autoprune.searchers import SEARCHERS

LONG_BUILDING = 300.0  # seconds; a front that takes less to build is never made smaller
LONG_SEARCH = 3600.0  # seconds of scores from which on there is advice
LEAST_SPEEDUP = 1.1  # of bfloat16, from which on it is mentioned
SCREENED = {"evolution": 3.3, "auto": 2.3}  # how many times fewer examples `screening` needs (docs/results.md)


def chosen_front_size(building: float, search: float) -> int:
    """The size of a front that the job leaves open, from the seconds that building the larger one and the search take.

    It is the larger size, unless building takes long and longer than the search.
    """
    usual, few = FRONT_SIZES
    return few if building > max(search, LONG_BUILDING) else usual


def front_size_note(size: int, building: float, search: float) -> str:
    """Says that a smaller front was chosen, and why."""
    return (
        f"front_size: at most {size} networks are built, as building {FRONT_SIZES[0]} would take "
        f"{time_text(building)}, longer than the search ({time_text(search)}). Give front_size to build another number."
    )


def search_advice(job: Job, search: float, low: float | None) -> str:
    """A sentence on what would make a search shorter; empty if it is short or does not score all networks in full.

    Args:
        job: the settings.
        search: the seconds of the search.
        low: its seconds in bfloat16; None if it runs in bfloat16 already, or not at all.
    """
    if search <= LONG_SEARCH or not _scores_in_full(job):
        return ""
    faster = low is not None and search > LEAST_SPEEDUP * low
    tried = faster and job.tune == "auto"
    ways = [
        *_screening(job),
        "fewer selection examples",
        "workers (executor: processes or ray)" if job.executor.name == "serial" else "more workers",
        *([f"bfloat16 (tune: auto tries it; {time_text(low)})"] if low is not None and faster and not tried else []),
    ]
    said = (
        f"evaluations: scoring {job.evaluations:,} networks takes {time_text(search)}. It takes less with "
        f"{', '.join(ways[:-1])} or {ways[-1]}."
    )
    if low is not None and tried:
        said += f" In bfloat16, which is taken if it ranks networks as float32 does, it takes {time_text(low)}."
    return said


def _scores_in_full(job: Job) -> bool:
    """Whether every network is scored on all selection examples, as far as the name of the searcher says."""
    if not isinstance(job.searcher, NamedSearcher):
        return True
    in_parts = SEARCHERS["optuna"] == job.searcher.name and bool(job.searcher.options.get("pruner"))
    return not in_parts and ".partial." not in job.searcher.name


def _screening(job: Job) -> list[str]:
    """Screening with the networks of the job's searcher, if it was measured with them."""
    if not isinstance(job.searcher, NamedSearcher) or job.finetune:
        return []
    return [
        f"searcher: {{name: screening, source: {name}}} (about {factor} times fewer examples for as good a front, see "
        "docs/results.md)"
        for name, factor in SCREENED.items()
        if SEARCHERS[name] == job.searcher.name
    ]


def known_form(job: Job, recorded: Form | None) -> Form | None:
    """The form of scores, if it is known before the search."""
    return recorded or (job.tune if isinstance(job.tune, Form) else None)
