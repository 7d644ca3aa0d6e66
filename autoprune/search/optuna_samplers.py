"""Optuna's samplers by name: which there are, what they take, and Optuna kept quiet while they work."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from autoprune.errors import ConfigError

if TYPE_CHECKING:
    import optuna

SINGLE_OBJECTIVE = ("CmaEsSampler",)  # Optuna raises for several only when it samples


def make_sampler(name: str, options: Mapping[str, Any], seed: int, objectives: int) -> optuna.samplers.BaseSampler:
    """The sampler of that name, for that many objectives; seeded where it takes a seed and the options have none.

    Args:
        name: a class of optuna.samplers, or "module:Class" for one's own.
        options: keyword arguments of its constructor.

    Raises:
        ConfigError: an unknown name, options it refuses, or more objectives than it handles.
    """
    kind = _class_of(name)
    if objectives > 1 and name in SINGLE_OBJECTIVE:
        raise ConfigError(
            f"sampler {name!r} handles one objective, got {objectives}. Take one for several, such as TPESampler or "
            "NSGAIISampler, or search at one budget: over: sensitivities with budget: 0.5."
        )
    seeded = {"seed": seed} if "seed" in inspect.signature(kind).parameters else {}
    with quiet():
        try:
            return kind(**{**seeded, **options})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optuna's {name} does not take sampler_options {dict(options)}: {error}") from error


def _class_of(name: str) -> type[optuna.samplers.BaseSampler]:
    from optuna.samplers import BaseSampler

    known = known_samplers()
    if ":" not in name and name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"expected sampler to be one of {list(known)} or 'module:Class', got {name!r}.{hint}")
    kind = _imported(name) if ":" in name else known[name]
    if not (inspect.isclass(kind) and issubclass(kind, BaseSampler)):
        raise ConfigError(f"expected sampler {name!r} to be a subclass of optuna.samplers.BaseSampler, got {kind!r}")
    return kind


def known_samplers() -> dict[str, type[optuna.samplers.BaseSampler]]:
    """The classes of optuna.samplers that can be made, by name."""
    from optuna import samplers

    kinds = {name: getattr(samplers, name) for name in sorted(samplers.__all__)}
    return {
        name: kind
        for name, kind in kinds.items()
        if inspect.isclass(kind) and issubclass(kind, samplers.BaseSampler) and not inspect.isabstract(kind)
    }


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"sampler {name!r} cannot be imported: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna without progress lines, and without notices that a feature is experimental or that a sampler makes nothing
    of constraints; all as before afterwards."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", message="Constraints have been set, but")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
