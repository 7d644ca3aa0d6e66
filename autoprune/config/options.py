"""Keys of a job file from options that are declared elsewhere (core.options)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, Field, create_model

from autoprune.core.options import DeclaredOption, Section, declared_options

Model = TypeVar("Model", bound=BaseModel)
Settings = TypeVar("Settings")


def with_options(section: Section, settings: type) -> Callable[[type[Model]], type[Model]]:
    """Returns a class decorator that adds the options of a section, which `settings` declares, after a model's keys."""
    keys: dict[str, Any] = {
        o.name: (o.kind, _field(o)) for o in declared_options(settings) if o.option.section == section
    }

    def extended(model: type[Model]) -> type[Model]:
        return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **keys)

    return extended


def resolved_options(settings: type[Settings], sections: Mapping[Section, BaseModel]) -> Settings:
    """The settings with the options that the sections of a job file have."""
    return settings(**{o.name: getattr(sections[o.option.section], o.name) for o in declared_options(settings)})


def _field(option: DeclaredOption) -> Any:
    return Field(option.default, description=option.description, examples=[option.default], **_bounds(option))


def _bounds(option: DeclaredOption) -> dict[str, Any]:
    if option.kind not in (int, float):
        return {}
    most = {} if option.option.most == math.inf else {"le": option.option.most}
    finite = {"allow_inf_nan": False} if option.kind is float else {}
    return {"ge": option.option.least, **most, **finite}
