"""What the numbers and words of a job may be, checked before any work: sentences for those that are outside."""

from __future__ import annotations

from collections.abc import Iterable

from autoprune.errors import ConfigError, did_you_mean

MOST_EVALUATIONS = 10_000_000
MOST_SEED = 2**32 - 1  # what NumPy's older generators, which Optuna's samplers use, still take
MOST_THREADS = 1024  # of torch; it makes as many as it is told, also more than a machine can hold
MOST_WORKERS = 10_000


def whole(name: str, value: object, least: int, most: int) -> list[str]:
    """A sentence where a value is no whole number within the limits, else nothing."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return []
    return [f"{name}: expected a whole number from {least} to {most}, got {value!r}"]


def number(name: str, value: object, least: float, most: float, *, above: bool = False) -> list[str]:
    """A sentence where a value is no finite number within the limits, or `above` the lower one, else nothing."""
    fits = isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most
    if fits and not (above and value == least):
        return []
    return [f"{name}: expected a number {'above' if above else 'from'} {least:g} up to {most:g}, got {value!r}"]


def one_of(value: object, known: Iterable[str]) -> list[str]:
    """A sentence where a value is none of the known words, else nothing."""
    known = list(known)
    if isinstance(value, str) and value in known:
        return []
    hint = did_you_mean(value, known) if isinstance(value, str) else ""
    return [f"expected one of {', '.join(known)}, got {value!r}{hint}"]


def word(name: str, value: object, known: Iterable[str]) -> list[str]:
    """As one_of, with the name of what the word is for."""
    return [f"{name}: {sentence}" for sentence in one_of(value, known)]


def told(problems: list[str]) -> None:
    """Raises ConfigError with all sentences, if there are any."""
    if problems:
        raise ConfigError(problems)
