"""What `search` and `open_run` expect of each argument: a sentence for every one of the wrong kind."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from torch import nn

from autoprune.core.levels import LevelRule
from autoprune.core.objective import NAMED, Objective, is_name
from autoprune.core.options import number, whole, word
from autoprune.measure.form import Form
from autoprune.measure.settings import Scoring
from autoprune.run.session.job import Executor
from autoprune.run.session.limits import MOST_EVALUATIONS
from autoprune.run.session.plugin_checks import kind_of
from autoprune.searchers import SEARCHERS, unknown_options
from autoprune.train.finetune import FineTune

LONGEST = 1e9  # seconds

Arguments = Mapping[str, Any]


def wrong_for_search(given: Arguments) -> list[str]:
    """A sentence for every argument of `search`, by name, that a Job does not check itself and that is wrong."""
    return [
        *_unless(given, "model", "a torch.nn.Module", isinstance(given["model"], nn.Module)),
        *_wrong_objectives(given["objectives"]),
        *_wrong_rules(given["rules"]),
        *_wrong_searcher(given["searcher"], given["options"]),
        *_unless(given, "fitness", "a function of (model, batches)", callable(given["fitness"])),
        *wrong_costs(given["costs"]),
        *_unless(given, "executor", "a name or an Executor", isinstance(given["executor"], str | Executor)),
        *_unless(given, "target", "bounds such as 'accuracy>=0.9 at macs<=0.5'", _optional(given["target"], str)),
        *_unless(given, "guide", "the name of a measurement, 'auto' or None", _optional(given["guide"], str)),
        *_unless(
            given, "scoring", "a Scoring such as Scoring(batch_norms='batch')", isinstance(given["scoring"], Scoring)
        ),
        *_unless(given, "finetune", "a FineTune", _optional(given["finetune"], FineTune)),
        *_wrong_expected(given["expected"]),
        *_unless(given, "device", "a name such as 'auto'", isinstance(given["device"], str)),
        *_unless(given, "deterministic", "True or False", isinstance(given["deterministic"], bool)),
        *_unless(given, "name", "a title", _optional(given["name"], str)),
        *_unless(given, "out", "a path", _optional(given["out"], str | Path)),
        *_unless(given, "fork", "the path of a run folder", _optional(given["fork"], str | Path)),
        *_wrong_resume(given["resume"], given["out"]),
        *wrong_watchers(given),
        *([] if isinstance(given["tune"], Form) else word("tune", given["tune"], ("auto", "off"))),
        *([] if given["seconds"] is None else number("seconds", given["seconds"], 0, LONGEST, above=True)),
        *([] if given["stagnation"] is None else whole("stagnation", given["stagnation"], 2, MOST_EVALUATIONS)),
    ]


def wrong_for_open_run(given: Arguments) -> list[str]:
    """A sentence for every argument of `open_run`, by name, that is wrong."""
    functions = ("fitness", "criterion", "masks", "searcher", "loss")
    wrong = [name for name in functions if given[name] is not None and not callable(given[name])]
    return [
        *_unless(given, "path", "the path of a run folder", isinstance(given["path"], str | Path)),
        *_unless(given, "model", "a torch.nn.Module", _optional(given["model"], nn.Module)),
        *(f"{name}: expected a function, got {kind_of(given[name])}" for name in wrong),
        *wrong_costs(given["costs"]),
        *wrong_watchers(given),
    ]


def wrong_costs(costs: object) -> list[str]:
    """Sentences on costs that are no functions by name; None is none."""
    if costs is None:
        return []
    if not isinstance(costs, Mapping) or not all(isinstance(name, str) for name in costs):
        got = kind_of(costs) if not isinstance(costs, Mapping) else f"the names {list(costs)}"
        return [f"costs: expected functions by name such as {{'joules': joules}}, got {got}"]
    if misnamed := [name for name in costs if not is_name(name)]:
        return [f"costs: expected names of {NAMED}, got {name!r}" for name in misnamed]
    wrong = [name for name, cost in costs.items() if not callable(cost)]
    return [f"costs: expected a function of kept counts for {name!r}, got {kind_of(costs[name])}" for name in wrong]


def wrong_watchers(given: Arguments) -> list[str]:
    """Sentences on `progress` and `trackers`."""
    progress, trackers = given["progress"], given["trackers"]
    some = isinstance(trackers, Sequence) and not isinstance(trackers, str | bytes)
    return [
        *_unless(given, "progress", "True, False or a function", isinstance(progress, bool) or callable(progress)),
        *_unless(given, "trackers", "a sequence of trackers", some),
    ]


def _unless(given: Arguments, name: str, expected: str, fits: bool) -> list[str]:
    return [] if fits else [f"{name}: expected {expected}, got {_shown(given[name])}"]


def _optional(value: object, kinds: Any) -> bool:
    return value is None or isinstance(value, kinds)


def _shown(value: object) -> str:
    """A plain value as it is, any other by its kind."""
    return repr(value) if value is None or isinstance(value, bool | int | float | str) else kind_of(value)


def _wrong_objectives(objectives: object) -> list[str]:
    if not _is_list(objectives) or not objectives:
        return [f"objectives: expected a sequence such as ('accuracy', 'macs'), got {objectives!r}"]
    wrong = [given for given in objectives if not isinstance(given, str | Objective)]
    return [f"objectives: expected names or Objectives, got {kind_of(given)} among them" for given in wrong]


def _wrong_rules(rules: object) -> list[str]:
    if isinstance(rules, str | Path):
        return []
    example = "such as LevelRule('*', (0.75, 0.5)) or {'match': '*', 'levels': 8}"
    if not _is_list(rules):
        advice = " Put it in a list." if isinstance(rules, LevelRule) or (isinstance(rules, Mapping) and rules) else ""
        return [f"rules: expected a sequence of LevelRules, {example}, got {kind_of(rules)}.{advice}"]
    if not rules:
        return [f"rules: expected at least one LevelRule, {example}, got none. Leave `rules` out for every eighth."]
    wrong = [rule for rule in rules if not isinstance(rule, LevelRule | Mapping)]
    return [f"rules: expected LevelRules, {example}, got {kind_of(rule)} among them" for rule in wrong[:1]]


def _wrong_searcher(searcher: object, options: object) -> list[str]:
    if not isinstance(options, Mapping | None) or not all(isinstance(name, str) for name in options or ()):
        got = f"the names {list(options)}" if isinstance(options, Mapping) else kind_of(options)
        return [f"options: expected a mapping from names to values, got {got}"]
    if isinstance(searcher, str):
        return word("searcher", searcher, SEARCHERS) or unknown_options(searcher, options or {})
    if not isinstance(searcher, type) and hasattr(searcher, "ask"):
        return ["searcher: expected a function of (problem, seed) that makes a searcher, got a searcher"]
    if not callable(searcher):
        return [f"searcher: expected a name or a function of (problem, seed), got {kind_of(searcher)}"]
    if options:
        return [
            f"options: expected none beside a searcher that is a function, got {', '.join(map(str, options))}. Bind "
            "them: functools.partial(searcher, ...)"
        ]
    return []


def _wrong_expected(expected: object) -> list[str]:
    numbers = isinstance(expected, Mapping) and all(
        isinstance(name, str) and not number(name, value, -sys.float_info.max, sys.float_info.max)
        for name, value in expected.items()
    )
    if expected is None or numbers:
        return []
    return [f"expected: expected numbers by name such as {{'accuracy': 0.917}}, got {expected!r}"]


def _wrong_resume(resume: object, out: object) -> list[str]:
    if resume is False or (resume is True and out is not None):
        return []
    return [f"resume: expected True, with `out`, or False, got {_shown(resume)}"]


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
