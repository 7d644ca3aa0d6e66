"""Contract test of trackers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from autoprune.core.contracts import Tracker
from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate
from autoprune.testing.sentences import keeping

TOTAL = 4
FACTS: dict[str, Any] = {
    "name": "check",
    "folder": None,
    "done": 0,
    "evaluations": TOTAL,
    "seed": 0,
    "objectives": [["accuracy", "max"], ["macs", "min"]],
    "dense": {"macs": 1000, "params": 100},
    "units": ["a", "b"],
    "document": {"name": "check", "search": {"searcher": {"name": "auto"}, "evaluations": TOTAL}, "run": {}},
}
EVALUATIONS = (
    Evaluation(Candidate((0, 0)), {"accuracy": 0.9, "macs": 1000, "params": 100}, seconds=0.1),
    Evaluation(Candidate((1, 2)), {"macs": 500, "params": 50}, "failed", "ValueError: a test"),
    Evaluation(Candidate((1, 1), 0.25), {"accuracy": math.nan, "macs": 600, "params": 60}),
    Evaluation(Candidate((2, 1)), {"accuracy": 0.5, "macs": 400, "params": 40, "kl": 0.1}),
)
ROWS: list[dict[str, Any]] = [
    {"candidate": "8-8", "macs": 1000, "accuracy": 0.9, "levels": [0, 0], "kept": {"a": 8, "b": 8}},
    {"candidate": "4-6", "macs": 400, "accuracy": 0.5, "levels": [2, 1], "kept": {"a": 4, "b": 6}},
]


def check_tracker(make: Tracker | Callable[[], Tracker]) -> None:
    """Checks that a tracker keeps its contract (see core.contracts.Tracker).

    A tracker must have the hooks `started`, `evaluated` and `finished`, which return None and change nothing that they
    are given. The hooks are called for a run that is stopped and resumed, with failed evaluations, evaluations of
    different names and NaN, and for a front with and without networks.

    Args:
        make: a tracker, or a class or function that makes one.

    Raises:
        AssertionError: the tracker breaks its contract; the message says how, and what to do.
    """
    with keeping("the tracker", "See autoprune.core.contracts.Tracker for the calls that a tracker gets."):
        tracker = make if isinstance(make, Tracker) and not isinstance(make, type) else _made(make)
        lacking = [hook for hook in ("started", "evaluated", "finished") if not callable(getattr(tracker, hook, None))]
        assert not lacking, (
            f"expected a tracker with started(facts), evaluated(evaluation, n, total) and finished(rows), got a "
            f"{type(tracker).__name__}, which has no {' and no '.join(lacking)}. Add the missing hooks"
        )
        _tell(tracker.started, {**FACTS})
        for number, evaluation in enumerate(EVALUATIONS[:2], start=1):
            _tell(tracker.evaluated, evaluation, number, TOTAL)
        _tell(tracker.started, {**FACTS, "done": 2})  # the run was stopped and is resumed
        for number, evaluation in enumerate(EVALUATIONS[2:], start=3):
            _tell(tracker.evaluated, evaluation, number, TOTAL)
        _tell(tracker.finished, ROWS)
        _tell(tracker.started, {**FACTS, "done": TOTAL})
        _tell(tracker.finished, [])


def _made(make: object) -> Any:
    assert callable(make), f"expected a tracker, or a class or function that makes one, got a {type(make).__name__}"
    return make()


def _tell(hook: Callable[..., object], *given: Any) -> None:
    before, own = repr(given), copy.deepcopy(given)
    returned = hook(*own)
    name = getattr(hook, "__name__", "the hook")
    assert repr(own) == before, f"{name} changed its arguments: work on a copy.deepcopy() of them"
    assert returned is None, f"expected {name} to return None, got {returned!r}. A tracker has no influence on a run"
