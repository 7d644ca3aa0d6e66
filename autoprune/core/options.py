"""Options: checks of their values, and declarations from which job files, checks and documents are made.

`at_least` raises; the other checks return messages, so that an error can list all mistakes. A field of a settings
dataclass is an option if its annotation has an `Option`. Its description is its entry in the section Attributes of the
dataclass's docstring.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from autoprune.errors import ConfigError, did_you_mean

LARGEST_OPTION = 1_000_000  # upper limit of integer options: population sizes, numbers of plans or probes
Section = Literal["search", "run", "recover"]


def at_least(option: str, value: int, least: int) -> int:
    """Returns `value`, or raises ConfigError unless it is an integer from `least` to LARGEST_OPTION."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"expected {option} to be a whole number of at least {least}, got {value!r}")
    if value > LARGEST_OPTION:
        raise ConfigError(f"expected {option} to be at most {LARGEST_OPTION:,}, got {value!r}")
    return value


def whole(name: str, value: object, least: float, most: float = math.inf) -> list[str]:
    """A message if the value is not a whole number within the limits, else nothing."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return []
    limit = "" if most == math.inf else f" to {most}"
    return [f"{name}: expected a whole number from {least}{limit}, got {value!r}"]


def number(name: str, value: object, least: float, most: float, *, above: bool = False) -> list[str]:
    """A message if the value is not a finite number within the limits, or strictly `above` the lower, else nothing."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if fits and not (above and value == least):
        return []
    return [f"{name}: expected a number {'above' if above else 'from'} {least:g} up to {most:g}, got {value!r}"]


def one_of(value: object, known: Iterable[str]) -> list[str]:
    """A message if the value is not one of the known words, else nothing."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return []
    hint = did_you_mean(value, known) if isinstance(value, str) else ""
    return [f"expected one of {', '.join(known)}, got {value!r}{hint}"]


def word(name: str, value: object, known: Iterable[str]) -> list[str]:
    """A message as from `one_of`, with the name of the setting."""
    return [f"{name}: {sentence}" for sentence in one_of(value, known)]


def raise_problems(problems: list[str]) -> None:
    """Raises ConfigError with all messages, if there are any."""
    if problems:
        raise ConfigError(problems)


@dataclass(frozen=True)
class Option:
    """Marks a field as an option of job files: `steps: Annotated[int, Option("search", least=1)] = 10`.

    Attributes:
        section: the section of a job file that has the option.
        least: the smallest value of a number.
        most: the largest value of a number.
        changes_scores: whether scores depend on the option. It is then a part of a run's identity.
    """

    section: Section
    least: float = 0
    most: float = math.inf
    changes_scores: bool = True


@dataclass(frozen=True)
class DeclaredOption:
    """An option with all that its declaration says."""

    name: str
    kind: Any
    default: Any
    description: str
    option: Option

    def problems(self, value: object) -> list[str]:
        """A message if a value is of another type or out of bounds, else nothing."""
        if get_origin(self.kind) is Literal:
            return word(self.name, value, get_args(self.kind))
        if self.kind in (int, float):
            check = whole if self.kind is int else number
            return check(self.name, value, self.option.least, self.option.most)
        return [] if isinstance(value, self.kind) else [f"{self.name}: expected a {self.kind.__name__}, got {value!r}"]


def declared_options(settings: type) -> tuple[DeclaredOption, ...]:
    """The options that a settings dataclass declares, in its order."""
    hints, descriptions = get_type_hints(settings, include_extras=True), _descriptions(settings)
    return tuple(
        DeclaredOption(field.name, kind, field.default, descriptions.get(field.name, ""), option)
        for field in dataclasses.fields(settings)
        for kind, option in _marked(hints[field.name])
    )


def options_in(section: Section, settings: object) -> dict[str, Any]:
    """The values of the options of one section, by name."""
    return {o.name: getattr(settings, o.name) for o in declared_options(type(settings)) if o.option.section == section}


def option_problems(settings: object) -> list[str]:
    """A message for every option whose value is of another type or out of bounds."""
    return [
        said for option in declared_options(type(settings)) for said in option.problems(getattr(settings, option.name))
    ]


def _marked(hint: Any) -> list[tuple[Any, Option]]:
    """The type of an annotation and its `Option`; empty if it has none."""
    if get_origin(hint) is not Annotated:
        return []
    kind, *extras = get_args(hint)
    return [(kind, extra) for extra in extras if isinstance(extra, Option)]


def _descriptions(settings: type) -> dict[str, str]:
    """The entries of the section Attributes of a docstring, each as one line without its last period."""
    section = inspect.cleandoc(settings.__doc__ or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    parts = re.split(r"^    (\w+): ", section, flags=re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in zip(parts[1::2], parts[2::2], strict=True)}
