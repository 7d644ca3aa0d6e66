"""Values of a job file that repeat the value of another key: `tokenizer: ${model.path}`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoprune.config.document import Document, KeyPath, dotted_key
from autoprune.errors import did_you_mean

_REFERENCE = re.compile(r"^\$\{([^{}]*)\}$")


def with_references(document: Document) -> tuple[Document, list[str]]:
    """The document with the value of the named key in place of each `${key.path}`, and a sentence for each mistake.

    The named value is a number, a text or another plain value, and is no reference itself.
    """
    problems: list[str] = []

    def resolved(value: Any, path: KeyPath) -> Any:
        if isinstance(value, Mapping):
            return {key: resolved(entry, (*path, key)) for key, entry in value.items()}
        if isinstance(value, list):
            return [resolved(entry, (*path, index)) for index, entry in enumerate(value)]
        named = _REFERENCE.match(value) if isinstance(value, str) else None
        if named is None:
            return value
        found, problem = _named(document.data, named[1])
        if problem:
            problems.append(document.problem(path, problem))
        return value if problem else found

    return replace(document, data=resolved(document.data, ())), problems


def _named(data: Mapping[str, Any], name: str) -> tuple[Any, str]:
    """The value of a dotted key, and what is wrong with the reference; None and a sentence if something is."""
    value: Any = data
    for word in name.split("."):
        if not isinstance(value, Mapping) or word not in value:
            known = _keys(data, ())
            return None, f"expected ${{key.path}} to name a key of the job, got {name!r}{did_you_mean(name, known)}"
        value = value[word]
    if isinstance(value, Mapping | list) or (isinstance(value, str) and _REFERENCE.match(value)):
        return None, f"expected ${{{name}}} to name a plain value, that is {value!r}. Write it out."
    return value, ""


def _keys(data: Mapping[str, Any], path: Sequence[str]) -> list[str]:
    """The dotted keys of plain values."""
    keys: list[str] = []
    for key, value in data.items():
        keys += _keys(value, (*path, key)) if isinstance(value, Mapping) else [dotted_key((*path, key))]
    return keys
