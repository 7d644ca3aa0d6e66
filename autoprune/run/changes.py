"""Describes the changes between the job that a run was started with and the current one, and what remains valid."""

from __future__ import annotations

import ast
import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from autoprune.errors import JournalMismatch, shortened
from autoprune.run.fingerprint.canonical import shown
from autoprune.run.fingerprint.fingerprint import SOURCE, CodeFacts
from autoprune.run.fingerprint.source import BYTECODE
from autoprune.run.identity import identity_of
from autoprune.run.records.checks import Record
from autoprune.run.session.code import COST, FACTORY
from autoprune.run.session.session import Session
from autoprune.searchers import SEARCHERS

UNSEEN_BY_SCORES = ("objectives", "seed", "evaluations", "compensation", "searcher", "calls")  # of a run's identity
CODE = "code"  # the key of an identity with facts on code, by role (run.fingerprint)

_log = logging.getLogger(__name__)


class Change(NamedTuple):
    """A difference of a part of a run's identity, with a description."""

    name: str
    sentence: str

    @property
    def seen_by_scores(self) -> bool:
        """Whether measurements of the run are no longer valid. Costs are not measured but computed again."""
        return self.name not in UNSEEN_BY_SCORES and not self.name.startswith(COST)


def check_identity(session: Session, header: Record, unless: Collection[str] = ()) -> None:
    """Raises JournalMismatch, with the differences, if the job is not the one that the journal was written for.

    Parts named in `unless` may differ. Parts that a journal of an earlier version lacks give a warning.
    """
    changed = [change for change in changes(session, header) if change.name not in unless]
    if changed:
        raise JournalMismatch(
            f"expected the job the run was started with, but {'; '.join(change.sentence for change in changed)}. Put "
            "it back, or start a new run that reuses the valid evaluations: autoprune resume RUN --fork DIR, or "
            "autoprune.search(..., out=DIR, fork=RUN) in Python."
        )


def changes(session: Session, header: Record) -> list[Change]:
    """The differences between the job of a session and the one that a journal was started with."""
    then, now = header.get("identity", {}), identity_of(session)
    if CODE not in then:
        _log.warning(
            "the journal was written by an earlier autoprune, which did not record the options and the source of "
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
    """The facts on a run's code, with those on its searcher in the current form.

    Earlier runs from Python recorded the function that made a searcher from a name and options instead of its class.
    """
    facts = code.get("searcher", {})
    if facts.get("function") != "_made":
        return code
    try:
        name, options = (ast.literal_eval(facts[key]) for key in ("name", "options"))
    except (SyntaxError, ValueError):  # options that are too long or not values are recorded as a digest only
        return code
    plain = {key: shown(value) for key, value in options.items()}
    return {**code, "searcher": {"function": SEARCHERS[name].rpartition(":")[2], **plain}}


def _sentence(name: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    factory = f"{name}{FACTORY}"
    made = _differences(then.get(CODE, {}).get(factory), now[CODE].get(factory)) if CODE in then else []
    why = f" (of its factory, {'; '.join(made)})" if made else ""
    return f"{name} was {shortened(str(then.get(name)))}, is {shortened(str(now.get(name)))}{why}"


def _differences(then: Mapping[str, str] | None, now: Mapping[str, str] | None) -> list[str]:
    """The differences of facts, in words; bytecode of another Python version cannot be compared."""
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
