"""The registry of operators' rules, to which users can add."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder

Rule = Callable[[Recorder, OperatorCall], Axes | list[Axes]]
Registered = TypeVar("Registered", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Registered], Registered]:
    """Registers a rule for operators.

    A rule gets the recorder and the call, relates axes, and returns the axes of the output (a list of them for several
    outputs).

    >>> @autoprune.rule("mylib::scale_channels")
    ... def scale_channels(recorder, call):
    ...     x, scale = recorder.axes(call["x"]), recorder.axes(call["scale"])
    ...     unify(x[1], scale[0], call.where)
    ...     return x

    Args:
        *names: ATen names ("softmax" covers all overloads), or "library::name" for other operators.

    Returns:
        A decorator for the rule.
    """

    def register(function: Registered) -> Registered:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def find_rule(name: str, overload: Any) -> Rule | None:
    """The rule of an operator; None if it has none."""
    known = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if known is None and overload is not None and torch.Tag.pointwise in overload.tags:
        return RULES["pointwise"]
    return known
