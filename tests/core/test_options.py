"""Options that a settings dataclass declares once: what is read from a declaration, and what a value is held to."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from autoprune.core.options import Option, declared_options, option_problems, options_in


@dataclass(frozen=True)
class Settings:
    """Settings of a test.

    Attributes:
        steps: number of steps, counted
            from the first.
        share: share of the examples.
        order: order of the examples: given or random.
        told: whether the steps are told. Of no matter otherwise.
        inner: no option.

    Raises:
        nothing: at all.
    """

    steps: Annotated[int, Option("search", least=1)] = 10
    share: Annotated[float, Option("run", most=1)] = 0.5
    order: Annotated[Literal["given", "random"], Option("search")] = "given"
    told: Annotated[bool, Option("run")] = False
    inner: int = 3


def test_a_declaration_has_name_type_default_and_description():
    assert [(o.name, o.kind, o.default, o.description) for o in declared_options(Settings)] == [
        ("steps", int, 10, "number of steps, counted from the first"),
        ("share", float, 0.5, "share of the examples"),
        ("order", Literal["given", "random"], "given", "order of the examples: given or random"),
        ("told", bool, False, "whether the steps are told. Of no matter otherwise"),
    ]


def test_values_are_found_by_section():
    assert options_in("search", Settings(steps=4)) == {"steps": 4, "order": "given"}
    assert options_in("run", Settings(inner=5)) == {"share": 0.5, "told": False}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"steps": 1, "share": 1, "order": "random", "told": True}, []),
        ({"steps": 0}, ["steps: expected a whole number from 1, got 0"]),
        ({"steps": 2.0}, ["steps: expected a whole number from 1, got 2.0"]),
        ({"share": 1.5}, ["share: expected a number from 0 up to 1, got 1.5"]),
        ({"order": "randm"}, ["order: expected one of given, random, got 'randm' (did you mean 'random'?)"]),
        ({"told": 1}, ["told: expected a bool, got 1"]),
        ({"steps": None, "share": "a"}, 2),
    ],
)
def test_values_are_held_to_type_and_bounds(changes, told):
    found = option_problems(Settings(**changes))
    assert len(found) == told if isinstance(told, int) else found == told
