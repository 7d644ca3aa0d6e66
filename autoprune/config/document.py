"""YAML as plain data that knows the place of every value, so that mistakes are reported with file and line."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autoprune.config.limits import check_depth, check_size
from autoprune.config.shipped import places
from autoprune.errors import ConfigError

KeyPath = tuple[str | int, ...]
BLANK = "???"
MOST_BYTES = 4_000_000  # largest size of a file; the largest job files have some thousand bytes
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")  # tags of an untagged mapping or list
_Where = Callable[[int], str]  # from a line number, counted from 1, to its place


@dataclass(frozen=True)
class Document:
    """The mapping in a file, and the place of each of its keys: "job.yaml:7", or "--set a.b=c" for an override."""

    data: Mapping[str, Any]
    places: Mapping[KeyPath, str]

    def place(self, path: KeyPath) -> str:
        """The place of a key; for a missing key, that of the mapping around it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def problem(self, path: KeyPath, sentence: str) -> str:
        """The sentence prefixed with its place and key: "job.yaml:7: search.evaluations: expected ..."."""
        return f"{self.place(path)}: {dotted_key(path)}: {sentence}" if path else f"{self.place(path)}: {sentence}"


def dotted_key(path: KeyPath) -> str:
    """("units", 0, "keep") as units.0.keep, the form that --set takes."""
    return ".".join(str(key) for key in path)


def read_document(path: Path, begins: str = "version: 1") -> Document:
    """Reads a file.

    Args:
        path: the file.
        begins: the first line that the message for a file without a mapping suggests.

    Raises:
        ConfigError: the file is missing, not text, not YAML, not a mapping, or repeats a key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except IsADirectoryError:
        raise ConfigError(
            f"{path}: expected a YAML file, got a folder. Name a job file; a run folder is continued with: "
            f"autoprune resume {path}"
        ) from None
    except FileNotFoundError:
        where = places(path, (Path.cwd(),))
        raise ConfigError(f"expected a file {str(path)!r}, found none in {where}. Check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a readable UTF-8 text file: {error}") from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: expected at most {MOST_BYTES:,} bytes, got more. Is it the right file?")
    return parse_document(text, str(path), begins)


def parse_document(text: str, name: str, begins: str = "version: 1") -> Document:
    """Parses a YAML text; `name` is the file name in the places of its keys."""
    data, places = _parse(text, lambda line: f"{name}:{line}")
    if not isinstance(data, dict):
        got = "an empty file" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{name}:1: expected a mapping of keys, got {got}. Begin with `{begins}`.")
    return Document(data, places)


def override(document: Document, settings: Sequence[str]) -> tuple[Document, list[str]]:
    """The document with `a.b=c` settings applied in order, and a sentence for every setting that failed.

    c is read as YAML; missing mappings on the way are created; a number selects an entry of a list.
    """
    data, places, problems = copy.deepcopy(dict(document.data)), dict(document.places), []
    for setting in settings:
        try:
            _apply(data, places, setting)
        except ConfigError as error:
            problems += error.problems
    return Document(data, places), problems


def blanks(document: Document) -> list[str]:
    """A sentence for every value that is `???`, left for the user to set."""
    paths = list(_paths(document.data, ()))
    return [
        document.problem(path, f"expected a value in place of ???. Pass --set {dotted_key(path)}=...") for path in paths
    ]


def blank_keys(document: Document) -> list[str]:
    """The keys whose values are `???`, in the form that --set takes."""
    return list(map(dotted_key, _paths(document.data, ())))


def _paths(value: Any, path: KeyPath) -> Iterator[KeyPath]:
    """The key paths of the blanks in plain data."""
    if value == BLANK:
        yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from _paths(entry, (*path, key))


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that 1e-3 is a number and 2024-01-31 is text, as authors of such files expect."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def _parse(text: str, where: _Where) -> tuple[Any, dict[KeyPath, str]]:
    """The plain data of a YAML text and the place of every key in it."""
    with _syntax_errors(where):
        check_depth(text, where)
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            check_size(node, where)
        reader = _Reader(loader, where)
        data = None if node is None else reader.value(node, ())
    if reader.problems:
        raise ConfigError(reader.problems)
    return data, reader.places


class _Reader:
    """Turns the nodes of one text into plain data, and notes the line of every key."""

    def __init__(self, loader: _Loader, where: _Where) -> None:
        self._loader = loader
        self._where = where
        self._open: list[yaml.Node] = []
        self.places: dict[KeyPath, str] = {(): where(1)}
        self.problems: list[str] = []

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        """The plain data of a node; Any, because a file can contain anything."""
        if any(node is outer for outer in self._open):
            self.problems.append(
                f"{self._place(node)}: {dotted_key(path)}: expected a value, got an alias of its own surroundings"
            )
            return None
        self._open.append(node)
        try:
            return self._value(node, path)
        finally:
            self._open.pop()

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            self.problems.append(
                f"{self._place(node)}: {dotted_key(path)}: expected no tag, got {node.tag}. Remove it."
            )
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for index, entry in enumerate(node.value):
                self.places[*path, index] = self._place(entry)
            return [self.value(entry, (*path, index)) for index, entry in enumerate(node.value)]
        return self._loader.construct_object(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self._note_duplicates(node, path)
        self._loader.flatten_mapping(node)  # `<<: *defaults`: merged pairs come first, so that own keys win below
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            self.places[*path, key] = self._place(key_node)
            mapping[key] = self.value(value_node, (*path, key))
        return mapping

    def _key(self, node: yaml.Node, path: KeyPath) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            got = repr(node.value) if isinstance(node, yaml.ScalarNode) else "a list or mapping"
            around = dotted_key(path) or "the file"
            self.problems.append(f"{self._place(node)}: {around}: expected a text as key, got {got}. Put it in quotes.")
        return str(node.value)

    def _note_duplicates(self, node: yaml.MappingNode, path: KeyPath) -> None:
        first: dict[str, yaml.Node] = {}
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in first:
                self.problems.append(
                    f"{self._place(key_node)}: {dotted_key((*path, key))}: expected each key once, "
                    f"got it again after line {first[key].start_mark.line + 1}. Remove one of the two."
                )
            first.setdefault(key, key_node)

    def _place(self, node: yaml.Node) -> str:
        return self._where(node.start_mark.line + 1)


@contextmanager
def _syntax_errors(where: _Where) -> Iterator[None]:
    """Turns PyYAML's exceptions into a ConfigError with the line."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        place = where(mark.line + 1 if mark else 1)
        raise ConfigError(f"{place}: expected YAML: {what}. Check indentation, quotes and brackets.") from error
    except (yaml.YAMLError, ValueError) as error:  # a control character; a malformed number such as 0x
        raise ConfigError(f"{where(1)}: expected YAML: {' '.join(str(error).split())}") from error


def _apply(data: dict[str, Any], places: dict[KeyPath, str], setting: str) -> None:
    place = f"--set {setting}"
    name, equals, text = setting.partition("=")
    words = [word.strip() for word in name.split(".")]
    if not equals or not all(words):
        raise ConfigError(f"{place}: expected key.path=value such as search.evaluations=100, got {setting!r}")
    value, inner = _parse(text, lambda line: place)
    around: Any = data
    path: KeyPath = ()
    for word in words[:-1]:
        path = (*path, _key_in(around, word, path, place))
        if isinstance(around, dict) and around.get(word) is None:
            around[word] = {}
            places[path] = place
        around = around[path[-1]]
    path = (*path, _key_in(around, words[-1], path, place))
    around[path[-1]] = value
    for stale in [known for known in places if known[: len(path)] == path]:
        del places[stale]
    places.update({(*path, *rest): place for rest in inner})


def _key_in(around: Any, word: str, path: KeyPath, place: str) -> str | int:
    """The key that a word of a setting refers to, in a mapping or a list."""
    if isinstance(around, dict):
        return word
    if isinstance(around, list) and word.isdecimal() and int(word) < len(around):
        return int(word)
    last = len(around) - 1 if isinstance(around, list) else 0
    expected = (
        f"a number from 0 to {last} for the list" if isinstance(around, list) else f"a mapping to set {word!r} in"
    )
    got = repr(word) if isinstance(around, list) else repr(around)
    whole = dotted_key(path)
    raise ConfigError(f"{place}: {whole}: expected {expected}, got {got}. Or set it as a whole: --set '{whole}=...'")
