"""Stands in a job for code that the caller of `load_run` puts into the resolved job itself."""

from __future__ import annotations

from typing import Any

from autoprune.errors import ConfigError

NAME = "autoprune.config.absent:absent"


def absent(*given: Any, **options: Any) -> Any:
    """Raises ConfigError, as no code was passed in its place."""
    raise ConfigError("expected code of the job in place of autoprune.config.absent:absent. Pass it to open_run.")
