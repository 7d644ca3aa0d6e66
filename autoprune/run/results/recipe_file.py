"""Reads recipe.json as untrusted input: every defect is a RecipeError, and its content can neither run code nor set
anything except integers that a model's modules have already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autoprune.errors import RecipeError
from autoprune.prune.modules.adapting import ADAPTERS
from autoprune.prune.modules.attributes import numbers

RECIPE_FORMAT = 3  # format 1 has no adapted or skipped modules, format 2 no checksums
CHECKSUM = "checksum"
SEALED = ("class", "weights_sha256", "probe", CHECKSUM)  # the keys that recipes have from format 3 on
LONGEST_TUPLE = 1000  # largest length of a tuple that a skipped module returned


@dataclass(frozen=True)
class RecipeDocument:
    """The content of recipe.json with checked types. `weights_sha256` and `probe` are None without checksums."""

    kind: str
    shapes: Mapping[str, tuple[int, ...]]
    adapted: Sequence[str]
    sizes: Mapping[str, Mapping[str, int]]
    skipped: Mapping[str, int]
    weights_sha256: str | None
    probe: Mapping[str, Any] | None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with a checksum of its content."""
    content = {name: value for name, value in document.items() if name != CHECKSUM}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return {**content, CHECKSUM: hashlib.sha256(text.encode()).hexdigest()}


def read_recipe(path: Path) -> RecipeDocument:
    """Reads the recipe of a file. RecipeError, with the file's name, if it is invalid."""
    try:
        text = path.read_bytes().decode()
        document = json.loads(text, parse_constant=_no_constant, object_pairs_hook=_distinct)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: the export is damaged: {error}. Export again.") from error
    try:
        return _parsed(document)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{path}: the export is damaged: {error}. Export again.") from error


def _no_constant(word: str) -> float:
    raise ValueError(f"expected finite numbers, got {word}")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len({*names}) < len(names):
        raise ValueError(f"expected each key once, got {names}")
    return dict(pairs)


def _parsed(document: Any) -> RecipeDocument:
    _expect(isinstance(document, dict), "a mapping", document)
    number = document.get("format")
    _expect(
        type(number) is int and 1 <= number <= RECIPE_FORMAT,
        f"format 1 to {RECIPE_FORMAT} (a later one needs another autoprune)",
        number,
    )
    if number < RECIPE_FORMAT:
        late = [name for name in (CHECKSUM, "weights_sha256", "probe") if name in document]
        _expect(not late, f"no {late} in format {number}", number)
    else:
        gone = [name for name in SEALED if name not in document]
        _expect(not gone, f"the keys {gone}", "none of that name")
        _expect(sealed(document)[CHECKSUM] == document[CHECKSUM], "the content its checksum says", "another one")
    probe, checksum = document.get("probe"), document.get("weights_sha256")
    _expect(probe is None or isinstance(probe, dict), "a mapping as probe", probe)
    _expect(checksum is None or isinstance(checksum, str), "a text as weights_sha256", checksum)
    return RecipeDocument(
        _text(document.get("class"), "class"),
        {
            name: tuple(_list(shape, _count, f"dense_shapes.{name}"))
            for name, shape in _mapping(document, "dense_shapes")
        },
        _list(document.get("adapted", []), _text, "adapted"),
        {name: dict(_sizes(own, f"sizes.{name}")) for name, own in _mapping(document, "sizes")},
        {name: _count(length, f"skipped.{name}", LONGEST_TUPLE) for name, length in _mapping(document, "skipped", {})},
        checksum,
        probe,
    )


def _expect(true: bool, expected: str, got: object) -> None:
    if not true:
        raise ValueError(f"expected {expected}, got {str(got)[:80]}")


def _text(value: Any, where: str) -> str:
    _expect(isinstance(value, str), f"{where} to be a text", repr(value))
    return str(value)


def _count(value: Any, where: str, most: int = 2**31) -> int:
    _expect(type(value) is int and 0 <= value <= most, f"{where} to be an integer from 0 to {most}", repr(value))
    return int(value)


def _list(value: Any, kind: Callable[[Any, str], Any], where: str) -> list[Any]:
    _expect(isinstance(value, list), f"{where} to be a list", repr(value))
    return [kind(entry, where) for entry in value]


def _mapping(document: Mapping[str, Any], key: str, default: object = None) -> Iterable[tuple[str, Any]]:
    value = document.get(key, default)
    _expect(isinstance(value, dict), f"{key} to be a mapping", repr(value))
    return list(value.items())


def _sizes(value: Any, where: str) -> Iterable[tuple[str, int]]:
    _expect(isinstance(value, dict), f"{where} to be a mapping", repr(value))
    return [(path, _count(number, f"{where}.{path}")) for path, number in value.items()]


def check_fits(model: nn.Module, recipe: RecipeDocument) -> None:
    """Raises ValueError for a recipe with modules or integers that the model does not have.

    A size is set only where a module has an integer already that tracing could have found (attributes.numbers): as an
    attribute, or in a list, tuple, dictionary, dataclass or configuration; never through a class, method or property.
    """
    modules = dict(model.named_modules())
    for name in (*recipe.adapted, *recipe.sizes, *recipe.skipped):
        _expect(name in modules, f"a module {name!r} in the model", "none of that name")
    for name in recipe.adapted:
        kinds = tuple(ADAPTERS)
        _expect(
            type(modules[name]) in kinds,
            f"{name} to be one of {[kind.__name__ for kind in kinds]}",
            type(modules[name]),
        )
    _expect("" not in recipe.skipped, "a module inside the model to be skipped", "the model itself")
    for name, sizes in recipe.sizes.items():
        found = dict(numbers(modules[name]))
        for path, number in sizes.items():
            kept = found.get(path)
            _expect(kept is not None, f"an integer that {name or 'the model'} keeps at {path!r}", "none there")
            _expect(number <= (kept or 0), f"at most {kept} for {path!r} of {name or 'the model'}", number)
