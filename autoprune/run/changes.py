"""What changed between the job a run was started with and the one at hand, in words; and what still holds of a run."""

from __future__ import annotations

import ast
import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from autoprune.errors import JournalMismatch
from autoprune.run.fingerprint.canonical import shown
from autoprune.run.fingerprint.fingerprint import SOURCE, CodeFacts
from autoprune.run.fingerprint.source import BYTECODE
from autoprune.run.identity import identity_of
from autoprune.run.records.checks import Record
from autoprune.run.session.code import COST, FACTORY
from autoprune.run.session.session import Session
from autoprune.searchers import SEARCHERS

UNSEEN_BY_SCORES = ("objectives", "seed", "evaluations", "compensation", "searcher", "calls")  # of a run's identity
CODE = "code"  # of an identity: facts by what they are of (run.fingerprint)

_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """Something of a run's identity that differs, and how."""

    name: str
    sentence: str

    @property
    def seen_by_scores(self) -> bool:
        """Whether what was measured does not hold any more. Costs are not measured: they are computed again."""
        return self.name not in UNSEEN_BY_SCORES and not self.name.startswith(COST)


def check_identity(session: Session, header: Record, unless: Collection[str] = ()) -> None:
    """Raises JournalMismatch, naming what differs, when the job is not the one the journal was written for.

    What is named in `unless` may differ. A journal of an earlier version says less; what it does not say is a warning.
    """
    changed = [change for change in changes(session, header) if change.name not in unless]
    if changed:
        raise JournalMismatch(
            f"expected the job the run was started with, but {'; '.join(change.sentence for change in changed)}. Put "
            "it back, or start a new run that keeps what still holds of this one: autoprune resume RUN --fork DIR, or "
            "autoprune.search(..., out=DIR, fork=RUN) in Python."
        )


def changes(session: Session, header: Record) -> list[Change]:
    """What differs between the job of a session and the one a journal was begun with."""
    then, now = header.get("identity", {}), identity_of(session)
    if CODE not in then:
        _log.warning(
            "the journal was written by an earlier autoprune, which did not note the options and the source of "
            "fitness, criterion, costs, searcher and model: whether they are the same is not checked"
        )
    named = [name for name in dict.fromkeys((*now, *then)) if name != CODE and now.get(name) != then.get(name)]
    found = [Change(name, _sentence(name, then, now)) for name in named]
    before = with_named_searcher(then.get(CODE, now[CODE]))
    for role in dict.fromkeys((*now[CODE], *before)):
        if role not in named and not role.endswith(FACTORY):
            found += [Change(role, f"{role}: {s}") for s in _differences(before.get(role), now[CODE].get(role))]
    return found


def with_named_searcher(code: Mapping[str, CodeFacts]) -> Mapping[str, CodeFacts]:
    """The facts of a run's code, with those of its searcher as they are noted now.

    Runs from Python used to note the function that made a searcher of a name and options, in place of its class.
    """
    facts = code.get("searcher", {})
    if facts.get("function") != "_made":
        return code
    try:
        name, options = (ast.literal_eval(facts[key]) for key in ("name", "options"))
    except (SyntaxError, ValueError):  # of options that are too long or are no values the digest alone is there
        return code
    plain = {key: shown(value) for key, value in options.items()}
    return {**code, "searcher": {"function": SEARCHERS[name].rpartition(":")[2], **plain}}


def _sentence(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    factory = f"{name}{FACTORY}"
    made = _differences(then.get(CODE, {}).get(factory), now[CODE].get(factory)) if CODE in then else []
    why = f" (of its factory, {'; '.join(made)})" if made else ""
    return f"{name} was {_short(then.get(name))}, is {_short(now.get(name))}{why}"


def _differences(then: Mapping[str, str] | None, now: Mapping[str, str] | None) -> list[str]:
    """In words, how facts differ; instructions of another Python can be compared with nothing."""
    if then is None or now is None:
        return ["is new" if then is None else "is gone"] if then != now else []
    labels = [label for label in dict.fromkeys((*now, *then)) if now.get(label) != then.get(label)]
    return [_difference(label, then.get(label), now.get(label)) for label in labels if not _foreign(then, now, label)]


def _foreign(then: Mapping[str, str], now: Mapping[str, str], label: str) -> bool:
    texts = [facts[label] for facts in (then, now) if label in facts]
    compiled = [text.startswith("bytecode of") for text in texts]
    return any(compiled) and len(texts) == 2 and not all(text.startswith(BYTECODE) for text in texts)


def _difference(label: str, then: str | None, now: str | None) -> str:
    if then is None or now is None:
        return f"{label} is {'new' if then is None else 'gone'}" + (f", {now}" if now and SOURCE not in label else "")
    if SOURCE in label:
        return f"the {label} changed"
    return f"{label} was {then}, is {now}"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
