"""Validation errors as sentences: where, what was expected, what came, what to do."""

from __future__ import annotations

import typing
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from autoprune.config.document import Document, KeyPath
from autoprune.core.objective import KNOWN_DIRECTIONS
from autoprune.errors import did_you_mean, shortened

_EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a text",
    "string_too_short": "a text that is not empty",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "a list with at least one entry",
    "too_long": "a list with at most {max_length} entries",
    "string_too_long": "a text of at most {max_length} characters",
    "is_instance_of": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "a text of a certain form",
}


def explain(
    error: ValidationError, model: type[BaseModel], document: Document, ignore: Collection[str] = ()
) -> list[str]:
    """One sentence for every mistake, in the order of the file's sections; none for the top-level keys in `ignore`."""
    details = [detail for detail in error.errors() if not detail["loc"] or detail["loc"][0] not in ignore]
    # pydantic also reports a list as too short if its entries are wrong, which are mistakes of their own
    told = [detail for detail in details if not (detail["type"] == "too_short" and detail["input"])]
    return [sentence for detail in told for sentence in _sentences(detail, model, document)]


def _sentences(detail: ErrorDetails, model: type[BaseModel], document: Document) -> list[str]:
    path, kind = detail["loc"], detail["type"]
    if kind == "mistakes":
        pairs: list[tuple[KeyPath, str]] = detail["ctx"]["mistakes"]
        return [
            document.problem((*path, *below), sentence + _remedy(sentence, path, below)) for below, sentence in pairs
        ]
    if kind == "extra_forbidden":
        return [document.problem(path, _unknown(path, model))]
    if kind == "missing":
        return [document.problem(path, _missing(path, detail["input"], model))]
    return [document.problem(path, _wrong(detail, model))]


def _remedy(sentence: str, path: KeyPath, below: KeyPath) -> str:
    """The remedy for a missing argument, which needs the whole path of its key."""
    if not sentence.startswith("expected the argument"):
        return ""
    key = ".".join(str(part) for part in (*path, *below))
    return f". Write it beside `call` or pass --set {key}=..."


def _unknown(path: KeyPath, model: type[BaseModel]) -> str:
    known = list(_section(path[:-1], model).model_fields)
    return f"unknown key{did_you_mean(str(path[-1]), known)}. The keys here are {', '.join(known)}."


def _missing(path: KeyPath, around: Any, model: type[BaseModel]) -> str:
    if path[0] == "objectives" and path[-1] == "direction":
        return _missing_direction(around.get("name"))
    return f"expected this key{_about(path, model)}, it is missing. {_example(path, model)}"


def _missing_direction(name: Any) -> str:
    known = KNOWN_DIRECTIONS.get(name) if isinstance(name, str) else None
    advice = f"`direction: {known}`" if known else "`direction: max` if more is better, `direction: min` if less is"
    return f"expected a direction, min or max, for the objective {name!r}, it is missing. Write {advice}."


def _wrong(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path = detail["loc"]
    came = shown_value(detail["input"])
    return f"expected {expected(detail)}{_about(path, model)}, got {came}. {_example(path, model)}"


def expected(detail: ErrorDetails) -> str:
    """A phrase for the expected value."""
    template = _EXPECTED.get(detail["type"])
    return template.format(**detail.get("ctx", {})) if template else detail["msg"]


def _about(path: KeyPath, model: type[BaseModel]) -> str:
    info = _field(path, model)
    return f" ({info.description})" if info and info.description else ""


def _example(path: KeyPath, model: type[BaseModel]) -> str:
    info, key = _field(path, model), next((part for part in reversed(path) if isinstance(part, str)), "")
    return f"Write for example `{key}: {info.examples[0]}`." if info and info.examples else "Change or remove it."


def shown_value(value: Any) -> str:
    """The value that came, shortened."""
    return "nothing" if value is None else shortened(repr(value))


def _section(path: KeyPath, model: type[BaseModel]) -> type[BaseModel]:
    """The model that describes the mapping at a path; list indices and free names in it are skipped."""
    for key in path:
        info = model.model_fields.get(str(key))
        model = (_model_in(info.annotation) if info else None) or model
    return model


def _field(path: KeyPath, model: type[BaseModel]) -> FieldInfo | None:
    """The field at a path; the list's field for an entry of a list, None for a free name."""
    words = [key for key in path if isinstance(key, str)]
    return _section(tuple(words[:-1]), model).model_fields.get(words[-1]) if words else None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside `tuple[Model, ...]`, `dict[str, Model]`, `Model | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in typing.get_args(annotation))
    return next((model for model in found if model), None)
