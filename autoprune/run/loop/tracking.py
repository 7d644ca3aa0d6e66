"""The trackers of a run, called in the driver's process. A tracker that raises is dropped, and the run continues."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoprune.core.contracts import Tracker
from autoprune.core.evaluation import Evaluation
from autoprune.core.process import ending_forks
from autoprune.errors import PluginError
from autoprune.plugins import plugin_name
from autoprune.run.fingerprint.secrets import withheld, without
from autoprune.run.loop.hiding import secrets_of
from autoprune.run.records.events import Events
from autoprune.run.session.job import Job, MakeTracker
from autoprune.run.session.session import Session

HOOKS = ("started", "evaluated", "finished")

_TEST = "autoprune.testing.check_tracker tests a tracker."


class Trackers:
    """The trackers of a run, by name. Each receives copies, without secrets."""

    def __init__(self, job: Job, events: Events) -> None:
        """Makes the trackers of a job. PluginError for an object that lacks one of the hooks."""
        self._events, self._clean = events, without(secrets_of(job))
        self._trackers: list[tuple[str, Tracker]] = []
        for given in job.trackers:
            name = plugin_name(given) if callable(given) else type(given).__qualname__
            self._trackers += [(name, _checked(name, made)) for made in self._results(name, "made", _made, given)]

    def started(self, facts: Mapping[str, Any]) -> None:
        """Passes facts on the run, as from `facts_of`, to the trackers."""
        clean = self._clean(dict(facts))
        self._tell("started", lambda tracker: tracker.started(copy.deepcopy(clean)))

    def evaluated(self, evaluation: Evaluation, n: int, total: int) -> None:
        """Passes a new evaluation to the trackers."""
        clean = replace(evaluation, cause=self._clean(evaluation.cause), remark=self._clean(evaluation.remark))
        self._tell("evaluated", lambda tracker: tracker.evaluated(copy.deepcopy(clean), n, total))

    def finished(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Passes the rows of the front to the trackers."""
        self._tell("finished", lambda tracker: tracker.finished(copy.deepcopy(list(rows))))

    def _tell(self, hook: str, tell: Callable[[Tracker], None]) -> None:
        doing = f"told what was {hook}"
        self._trackers = [(name, one) for name, one in self._trackers if self._results(name, doing, tell, one)]

    def _results(self, name: str, doing: str, call: Callable[[Any], object], argument: object) -> list[object]:
        """A list with the result of a tracker's code; empty, with a warning, if it raised."""
        try:
            with ending_forks():
                return [call(argument)]
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() must not end the run either
            said = self._clean(f"{type(error).__name__}: {error}")
            self._events.warn(
                f"the tracker {name} raised {said} when it was {doing}. It is dropped, and the run continues. {_TEST}"
            )
            return []


def _made(given: Tracker | MakeTracker) -> object:
    return given if isinstance(given, Tracker) and not isinstance(given, type) else given()


def _checked(name: str, tracker: object) -> Tracker:
    if isinstance(tracker, Tracker) and not isinstance(tracker, type):
        return tracker
    lacking = [hook for hook in HOOKS if not callable(getattr(tracker, hook, None))]
    lack = "is not made yet" if isinstance(tracker, type) else f"has no {' and no '.join(lacking)}"
    raise PluginError(
        f"expected the tracker {name} to be an object with {', '.join(HOOKS)}, got a {type(tracker).__name__}, which "
        f"{lack}. {_TEST}"
    )


def facts_of(session: Session, folder: Path | None, done: int) -> dict[str, Any]:
    """Facts on a run that starts, for trackers."""
    job = session.job
    return {
        "name": job.name,
        "folder": None if folder is None else str(folder),
        "done": done,
        "evaluations": job.evaluations,
        "seed": job.seed,
        "objectives": [[o.name, o.direction] for o in job.objectives],
        "dense": dict(session.dense_costs),
        "units": list(session.space.units),
        "document": withheld(job.document),
    }
