"""Optuna's samplers and pruners by name: looks them up, makes them, and keeps Optuna quiet while they work."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from autoprune.errors import ConfigError, did_you_mean

OptunaRole = Literal["sampler", "pruner"]

EXTRA = ("cmaes", "scipy")  # packages of the extra samplers


def known_classes(role: OptunaRole) -> dict[str, type]:
    """The instantiable classes of optuna.samplers or optuna.pruners, by name."""
    module, base = importlib.import_module(f"optuna.{role}s"), base_class(role)
    kinds = {name: getattr(module, name) for name in sorted(module.__all__)}
    return {
        name: kind
        for name, kind in kinds.items()
        if inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind)
    }


def base_class(role: OptunaRole) -> type:
    """The base class of all samplers, or of all pruners."""
    base: type = getattr(importlib.import_module(f"optuna.{role}s"), f"Base{role.capitalize()}")
    return base


def class_of(role: OptunaRole, name: str) -> type:
    """The class of that name, or of "module:Class"; ConfigError with the closest name if there is none."""
    known = known_classes(role)
    if ":" not in name and name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(f"expected {role} to be one of {list(known)} or 'module:Class', got {name!r}{hint}.")
    kind = _imported(role, name) if ":" in name else known[name]
    if not (inspect.isclass(kind) and issubclass(kind, base_class(role))):
        base = f"optuna.{role}s.{base_class(role).__name__}"
        raise ConfigError(f"expected {role} {name!r} to be a subclass of {base}, got {kind!r}")
    return kind


def _imported(role: OptunaRole, name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{role} {name!r} cannot be imported: {error}") from error


def make(role: OptunaRole, name: str, defaults: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """An object of a class, from the options and from those defaults that it accepts and the options lack.

    Raises:
        ConfigError: an unknown name, or options that the class refuses.
    """
    kind = class_of(role, name)
    taken = {key: value for key, value in defaults.items() if key in inspect.signature(kind).parameters}
    with quiet():
        try:
            return kind(**{**taken, **options})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optuna's {name} does not take {role}_options {dict(options)}: {error}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences Optuna's progress lines and its warnings about experimental features and ignored constraints."""
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


@contextlib.contextmanager
def working(name: str) -> Iterator[None]:
    """Keeps Optuna quiet while a sampler or pruner works; ConfigError if it imports a package that is not installed."""
    try:
        with quiet():
            yield
    except ImportError as error:  # QMC, GP, CMA-ES and the Wilcoxon pruner
        hint = (
            " Install it with: pip install 'autoprune[samplers]'"
            if (error.name or "").partition(".")[0] in EXTRA
            else ""
        )
        raise ConfigError(f"optuna's {name} needs a package that is not installed: {error}.{hint}") from error
