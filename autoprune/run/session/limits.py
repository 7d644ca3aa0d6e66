"""Limits of the numbers and words of a job, checked before any work. Each check returns messages for wrong values."""

from __future__ import annotations

from collections.abc import Iterable

from autoprune.errors import ConfigError, did_you_mean

MOST_EVALUATIONS = 10_000_000
MOST_SEED = 2**32 - 1  # the largest seed of NumPy's legacy generators, which Optuna's samplers use
MOST_THREADS = 1024  # torch starts any number of threads, even more than a machine can hold
MOST_WORKERS = 10_000


def whole(name: str, value: object, least: int, most: int) -> list[str]:
    """A message if the value is not a whole number within the limits, else nothing."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return []
    return [f"{name}: expected a whole number from {least} to {most}, got {value!r}"]


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
