"""Checks of options."""

from __future__ import annotations

from autoprune.errors import ConfigError

LARGEST_OPTION = 1_000_000  # upper limit of integer options: population sizes, numbers of plans or probes


def at_least(option: str, value: int, least: int) -> int:
    """Returns `value`, or raises ConfigError unless it is an integer from `least` to MOST."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"expected {option} to be a whole number of at least {least}, got {value!r}")
    if value > LARGEST_OPTION:
        raise ConfigError(f"expected {option} to be at most {LARGEST_OPTION:,}, got {value!r}")
    return value
