"""Secrets, which are never written: passwords, tokens, and the environment variables of workers.

Values that look like secrets are replaced in everything a run writes. In job.yaml the note that replaces one names the
environment variable from which a resumed run takes the value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

HIDDEN = "***"

Path = tuple[str | int, ...]

ENVIRONMENT = "env_vars"  # the key under which all values except numbers and file paths are treated as secrets

_NOTE = re.compile(r"^\*\*\* \(environment: (\w+)\)$")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET = re.compile(
    "tokens?|secrets?|pass|pass(word|wd|phrase)s?|pwd|credentials?|auth(orization)?|apikey|bearer|jwt|cookie"
)
_KEYS = re.compile("api|access|private|secret|account|encryption|signing|ssh|service|auth|client")  # key
_HARMLESS = re.compile("pad|[ebs]os|cls|sep|mask|unk|class|special|start|end|stop|dist|image|next|max|num")  # token
_PLAIN = re.compile(r"[-+.\d]*|[~./][\w./~-]*|true|false|yes|no|on|off", re.IGNORECASE)

# user:password@host, with or without a scheme; a user alone only with a scheme, which shows that it is one
_LOGIN = re.compile(
    r"(?<![\w+.-])(?P<scheme>[A-Za-z][\w+.-]{0,30}://)(?!git@)(?:[^/\s@:'\"]*:(?!\d+/)[^\s'\"]*@|[^/\s@'\"]+@)"
    r"|(?<![\w/.+-])[\w.+-]+:[^\s@/:'\"]+@(?=[\w.-]+)"
)
_NAMED = re.compile(
    r"(?P<name>\b[\w-]*(?:token|secret|password|passwd|api[_-]?key|access[_-]?key|signature|(?<![a-z])sig)=)"
    r"(?!\d+\b)[^&\s'\"]+"
    r"|(?P<bearer>\b(?:authorization:\s*(?:\w+\s+)?|bearer\s+(?=\S*\d)))[\w.~+/=-]{8,}",
    re.IGNORECASE,
)
_SHAPED = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-(?=[\w-]*\d)[\w-]{16,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{12,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)"
)


def is_secret(key: object, value: object) -> bool:
    """Whether a value must not be written, judged by the words of its key and by its content."""
    if not isinstance(value, str | bytes) or not value:
        return False
    return (isinstance(key, str) and _names_secret(key)) or (isinstance(value, str) and scrubbed(value) != value)


def _names_secret(key: str) -> bool:
    words = [word.lower() for word in _WORD.findall(key)]
    for before, word in zip(["", *words], words, strict=False):
        if (_SECRET.fullmatch(word) and not _HARMLESS.fullmatch(before)) or (word == "key" and _KEYS.fullmatch(before)):
            return True
    return False


def scrubbed(text: str) -> str:
    """A text without logins in addresses, `token=...`, and strings in the form of known tokens."""
    text = _LOGIN.sub(lambda found: f"{found['scheme'] or ''}{HIDDEN}@", text)
    text = _NAMED.sub(lambda found: f"{found['name'] or found['bearer']}{HIDDEN}", text)
    return _SHAPED.sub(HIDDEN, text)


def redacted(data: Any) -> Any:
    """Plain data for display: secrets become `***`, the rest of an address stays."""
    return _replaced(data, (), lambda path, value: value if _noted(value) else _shown(path, value))


def withheld(data: Any) -> Any:
    """Plain data for a file: each secret is replaced by a note with the environment variable to take it from."""
    return _replaced(
        data, (), lambda path, value: value if _noted(value) else f"{HIDDEN} (environment: {_variable(path)})"
    )


def restored(data: Any, missing: Callable[[Path, str], None]) -> Any:
    """Plain data with secrets from the environment; calls `missing` with key and variable for each that is not set."""

    def restore(path: Path, value: Any) -> Any:
        noted = _noted(value)
        if noted is None:
            return value
        if noted not in os.environ:
            missing(path, noted)
        return os.environ.get(noted, value)

    return _mapped(data, (), restore)


def missing_in(data: Any) -> list[str]:
    """The environment variables named in the notes of plain data."""
    return list(dict.fromkeys(filter(None, (_noted(value) for _, value in _leaves(data, ())))))


def secrets_in(data: Any) -> set[str]:
    """The secret values in plain data."""
    return {str(value) for path, value in _leaves(data, ()) if _hides(path, value) and _noted(value) is None}


def without(values: set[str]) -> Callable[[Any], Any]:
    """A function that replaces these values, and everything that looks like a secret, in the texts of plain data."""
    known = sorted((value for value in values if len(value) > 3), key=len, reverse=True)

    def clean(path: Path, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        for secret in known:
            value = value.replace(secret, HIDDEN)
        return scrubbed(value)

    return lambda data: _mapped(data, (), clean)


def _noted(value: Any) -> str | None:
    """The environment variable that a note names."""
    found = _NOTE.match(value) if isinstance(value, str) else None
    return found[1] if found else None


def _hides(path: Path, value: Any) -> bool:
    if ENVIRONMENT in path[:-1]:
        key = str(path[-1])
        return isinstance(value, str) and bool(value) and (_names_secret(key) or not _PLAIN.fullmatch(value))
    keys = [key for key in path if isinstance(key, str)]
    return is_secret(keys[-1] if keys else None, value)


def _shown(path: Path, value: str) -> str:
    """An address without its login; nothing of any other value."""
    text = scrubbed(value)
    named = any(_names_secret(str(key)) for key in path[-1:]) or ENVIRONMENT in path[:-1]
    return HIDDEN if named else text


def _variable(path: Path) -> str:
    """HF_TOKEN for a worker's variable of that name; AUTOPRUNE_DATA_TOKEN for the option token of data."""
    words = path[-1:] if ENVIRONMENT in path[:-1] else ("AUTOPRUNE", *path)
    text = re.sub(r"\W", "_", "_".join(map(str, words)))
    return text if ENVIRONMENT in path[:-1] else text.upper()


def _replaced(data: Any, path: Path, change: Callable[[Path, Any], Any]) -> Any:
    return _mapped(data, path, lambda where, value: change(where, value) if _hides(where, value) else value)


def _mapped(data: Any, path: Path, change: Callable[[Path, Any], Any]) -> Any:
    if isinstance(data, Mapping):
        return {key: _mapped(value, (*path, key), change) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_mapped(value, (*path, index), change) for index, value in enumerate(data)]
    return change(path, data)


def _leaves(data: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    pairs = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else None
    if pairs is None:
        yield path, data
        return
    for key, value in pairs:
        yield from _leaves(value, (*path, key))
