"""The job file of a job that was made in Python: its plain values, and `???` in place of code without a name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from autoprune.core.levels import LevelRule
from autoprune.core.objective import Objective
from autoprune.core.options import options_in
from autoprune.measure.form import Form
from autoprune.measure.settings import GIB
from autoprune.plugins import FILE_MODULES
from autoprune.run.session.job import Executor, Job, NamedSearcher, Stop
from autoprune.searchers import SEARCHERS
from autoprune.train.finetune import FineTune

BLANK = "???"  # in a job file, a value that is left open
MADE_BY = {"made_by": "autoprune.search in Python"}

Document = dict[str, Any]


def document_of(job: Job) -> Document:
    """The content of a job file for the job; model, data and example calls are left open."""
    guessed = {"calls": BLANK} if job.calls is not None else {}
    return {
        "version": 1,
        **MADE_BY,
        "name": job.name,
        "model": BLANK,
        "data": BLANK,
        **guessed,
        "space": {"version": 1, "units": list(map(_rule, job.rules))},
        "objectives": list(map(_objective, job.objectives)),
        "fitness": _call(job.fitness),
        "criterion": _choice(job.criterion),
        "masks": _choice(job.masks),
        "compensation": job.compensation,
        **({"finetune": _finetune(job.finetune)} if job.finetune else {}),
        "expected": dict(job.expected),
        "costs": {name: _call(cost) for name, cost in job.costs.items()},
        "search": {
            "searcher": _searcher(job.searcher),
            "evaluations": job.evaluations,
            **_given(front_size=job.front_size),
            "stop": _stop(job.stop),
            "seed": job.seed,
            "guide": job.guide,
            **options_in("search", job.scoring),
        },
        "run": {
            **_executor(job.executor),
            "deterministic": job.deterministic,
            "trackers": [call for call in map(_call, job.trackers) if call != BLANK],  # trackers change no result
            "device": job.device,
            **_given(threads=job.threads),
            "tune": _tune(job.tune),
            **options_in("run", job.scoring),
        },
    }


def _rule(rule: LevelRule) -> Document:
    return {
        "match": rule.match,
        **({"keep": list(rule.keep)} if rule.keep else {"skip": True}),
        **_given(kind=rule.kind, min_keep=rule.min_keep),
        "round_to": rule.round_to,
        **({"group": rule.group} if rule.kind == "pattern" else {}),
        **({"floor": rule.floor} if rule.kind == "weights" else {}),
    }


def _objective(objective: Objective) -> Document:
    found = {"name": objective.name, "direction": objective.direction, "unit": objective.unit}
    return {**found, **_given(bound=objective.bound)}


def _finetune(plan: FineTune) -> Document:
    return {**asdict(plan), "loss": _choice(plan.loss)}


def _stop(stop: Stop) -> Document:
    bounds = [bound.exact for bound in stop.target]
    return _given(seconds=stop.seconds, target=" at ".join(bounds) or None, stagnation=stop.stagnation)


def _tune(tune: str | Form) -> Document:
    return {"mode": tune} if isinstance(tune, str) else _given(**tune.to_json())


def _executor(executor: Executor) -> Document:
    """The executor, with only those keys that an executor of its name supports."""
    if executor.name == "serial":
        return {"executor": "serial"}
    memory = None if executor.memory_bytes is None else executor.memory_bytes / GIB
    ray = {"address": executor.address, "runtime_env": dict(executor.runtime_env)} if executor.name == "ray" else {}
    gpus = {"gpus": executor.gpus} if executor.name == "ray" else {}
    return {
        "executor": executor.name,
        **_given(workers=executor.workers),
        "resources": {"cpus": executor.cpus, **gpus, **_given(memory_gib=memory)},
        **ray,
        "attempts": executor.attempts,
        "timeout_s": "auto" if executor.timeout is None else executor.timeout,
    }


def _searcher(searcher: Callable[..., Any]) -> Document | str:
    if not isinstance(searcher, NamedSearcher):
        return _call(searcher)
    name = next(name for name, plugin in SEARCHERS.items() if plugin == searcher.name)
    return {"name": name, **searcher.options} if _is_plain(searcher.options) else BLANK


def _choice(plugin: str | Callable[..., Any]) -> Document | str:
    return {"name": plugin} if isinstance(plugin, str) else _call(plugin)


def _call(plugin: Any) -> Document | str:
    """A plug-in as a job file names it, with its options; a blank if it has no name or its options are not plain."""
    options: Mapping[str, Any] = {}
    if isinstance(plugin, functools.partial) and not plugin.args:
        plugin, options = plugin.func, plugin.keywords
    name = _name(plugin)
    return {"call": name, **options} if name and _is_plain(options) else BLANK


def _name(plugin: Any) -> str | None:
    """`module:name`, or `file.py:name` for a plug-in from a file; None if that does not name this very object."""
    module, name = getattr(plugin, "__module__", None) or "__main__", getattr(plugin, "__qualname__", "<")
    if module == "__main__" or "<" in name:
        return None
    try:
        found: Any = functools.reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        return None
    source = str(sys.modules[module].__file__) if module.startswith(FILE_MODULES) else module
    return f"{source}:{name}" if found is plugin else None


def _is_plain(value: object) -> bool:
    """Whether YAML writes and reads a value without changing it."""
    if isinstance(value, Mapping):
        return all(type(key) is str and _is_plain(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _given(**values: Any) -> Document:
    return {name: value for name, value in values.items() if value is not None}
