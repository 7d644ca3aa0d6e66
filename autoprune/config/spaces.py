"""The rules of a search space, from its file or from mappings with the keys of a job file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoprune.config.calls import Context
from autoprune.config.document import Document, read_document
from autoprune.config.explain import explain
from autoprune.config.shipped import shipped_file
from autoprune.config.spec import RuleSpec, SpaceSpec
from autoprune.core.levels import LevelRule
from autoprune.errors import ConfigError


def read_rules(given: str | Path | Sequence[LevelRule | Mapping[str, Any]]) -> tuple[LevelRule, ...]:
    """The rules of a search-space file, or of rules and mappings such as {"match": "*", "levels": 8}.

    Raises:
        ConfigError: every mistake in the file or the mappings, with its place.
    """
    if isinstance(given, str | Path):
        path = Path(given)
        document = read_document(path if path.exists() else shipped_file(path) or path)
        return tuple(rule.resolve(document.place(("units", i))) for i, rule in enumerate(_space(document).units))
    return tuple(_rule(number, rule) for number, rule in enumerate(given))


def _space(document: Document) -> SpaceSpec:
    try:
        return SpaceSpec.model_validate(document.data, context=Context(document))
    except ValidationError as error:
        raise ConfigError(explain(error, SpaceSpec, document)) from None


def _rule(number: int, given: LevelRule | Mapping[str, Any]) -> LevelRule:
    if isinstance(given, LevelRule):
        return given
    place = f"rules[{number}]"
    document = Document(dict(given), {(): place})
    try:
        return RuleSpec.model_validate(document.data, context=Context(document)).resolve(place)
    except ValidationError as error:
        raise ConfigError(explain(error, RuleSpec, document)) from None
