"""Which rule an operator has; where users add their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from autoprune.prune.structure.recorder import Axes, OperatorCall, Recorder

Rule = Callable[[Recorder, OperatorCall], Axes | list[Axes]]
Registered = TypeVar("Registered", bound=Rule)
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Registered], Registered]:
    """Gives operators a rule: ATen names as they are ("softmax" covers all overloads), others as "library::name".

    A rule gets the recorder and the call, relates axes, and returns the axes of the output (a list of them when there
    are several outputs).

    >>> @autoprune.rule("mylib::scale_channels")
    ... def scale_channels(recorder, call):
    ...     x, scale = recorder.axes(call["x"]), recorder.axes(call["scale"])
    ...     unify(x[1], scale[0], call.where)
    ...     return x
    """

    def register(function: Registered) -> Registered:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


def find_rule(name: str, overload: Any) -> Rule | None:
    """The rule of an operator, or None."""
    known = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if known is None and overload is not None and torch.Tag.pointwise in overload.tags:
        return RULES["pointwise"]
    return known
