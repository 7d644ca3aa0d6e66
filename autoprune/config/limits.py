"""Limits on a YAML text, checked before it is built: nesting depth, and size after aliases are expanded."""

from __future__ import annotations

from collections.abc import Callable

import yaml

from autoprune.errors import ConfigError

DEEPEST = 50  # largest nesting depth; job files need about six
MOST_VALUES = 100_000  # largest number of values after aliases and merge keys are expanded

Where = Callable[[int], str]  # from a line number, counted from 1, to its place

_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def check_depth(text: str, where: Where) -> None:
    """ConfigError for a text that nests too deep, read as a stream: PyYAML itself would overflow Python's stack."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        if depth > DEEPEST:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise ConfigError(
                f"{where(line)}: expected at most {DEEPEST} lists and mappings within each other, "
                "got more. Check the brackets."
            )


def check_size(node: yaml.Node, where: Where) -> None:
    """ConfigError if expanded aliases and merge keys make a text too large or too deep.

    Counts without expanding: a few lines of nested aliases can stand for more values than memory holds.
    """
    _size(node, where, {})


def _size(node: yaml.Node, where: Where, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """The number of values that a node expands to, and its depth; a node inside itself counts once here."""
    if id(node) not in known:
        known[id(node)] = 1, 1
        found = [_size(inner, where, known) for inner in _inner(node)]
        count, depth = 1 + sum(n for n, _ in found), 1 + max((d for _, d in found), default=0)
        if count > MOST_VALUES or depth > DEEPEST:
            raise ConfigError(
                f"{where(node.start_mark.line + 1)}: expected at most {MOST_VALUES:,} values, {DEEPEST} deep, after "
                f"aliases are expanded, got {count:,} values, {depth} deep. Remove aliases."
            )
        known[id(node)] = count, depth
    return known[id(node)]


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
