"""Checks that the records of a journal form a valid run, as another program or a user may have edited them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.core.evaluation import Evaluation
from autoprune.measure.form import Tuning

Record = Mapping[str, Any]

MALFORMED = (LookupError, TypeError, ValueError, AttributeError)  # errors of reading a record of another form


def first_wrong(records: Sequence[Record]) -> tuple[int, str] | None:
    """The index of the first invalid record and the reason; None if all are valid."""
    for index, record in enumerate(records):
        try:
            if index == 0:
                _check_header(record)
            else:
                _check_step(record)
        except MALFORMED as error:
            return index, f"it has no {error}" if isinstance(error, KeyError) else str(error)
    misplaced = _first_misplaced(records)
    said = "it answers or repeats a question that is not open: it is there twice"
    return None if misplaced is None else (misplaced, said)


def _first_misplaced(records: Sequence[Record]) -> int | None:
    """The index of the first record that cannot follow those before it; None if all can."""
    waiting: Counter[object] = Counter()
    for index, record in enumerate(records):
        if record["kind"] == "ask":
            if record["candidates"] and "fidelities" not in record and record == records[index - 1]:
                return index  # there is less room after an ask, so an equal one cannot follow
            fidelities = record.get("fidelities", [1.0] * len(record["candidates"]))
            waiting.update(zip(map(tuple, record["candidates"]), fidelities, strict=True))
        elif record["kind"] == "tell":
            key = tuple(record["evaluation"]["levels"]), record["evaluation"]["fidelity"]
            if not waiting[key]:
                return index
            waiting[key] -= 1
    return None


def is_evaluation(record: Record) -> bool:
    """Whether a record has an evaluation that can be read."""
    try:
        _check_evaluation(Evaluation.from_json(record["evaluation"]))
    except MALFORMED:
        return False
    return True


def _check_header(record: Record) -> None:
    if record["kind"] != "run" or not isinstance(record["identity"], Mapping):
        raise ValueError(f"expected the record that says what run this is, got one of kind {record['kind']!r}")
    if missing := [key for key in ("space", "objectives") if key not in record["identity"]]:
        raise ValueError(f"expected the record that says what run this is, it does not say {missing}")
    Tuning.from_json(record["tuning"])


def _check_step(record: Record) -> None:
    kind = record["kind"]
    if kind == "ask":
        fidelities = record.get("fidelities", [1.0] * len(record["candidates"]))
        if len(fidelities) != len(record["candidates"]):
            raise ValueError(f"expected a fidelity for each of {record['candidates']}, got {fidelities}")
        _check_whole([record["n"], *(n for levels in record["candidates"] for n in levels)])
    elif kind in ("tell", "answer"):
        _check_evaluation(Evaluation.from_json(record["evaluation"]))
    elif kind != "end":
        raise ValueError(f"expected a record of kind ask, tell, answer or end, got {kind!r}")
    elif not isinstance(record.get("seconds", 0.0), int | float):
        raise ValueError(f"expected the seconds of the search as a number, got {record['seconds']!r}")


def _check_evaluation(evaluation: Evaluation) -> None:
    _check_whole(evaluation.candidate.levels)
    if wrong := [name for name, value in evaluation.values.items() if not isinstance(value, int | float)]:
        raise ValueError(f"expected numbers as values, got {evaluation.values[wrong[0]]!r} for {wrong[0]!r}")
    if evaluation.status not in ("ok", "infeasible", "failed", "timeout"):
        raise ValueError(f"expected a status ok, infeasible, failed or timeout, got {evaluation.status!r}")


def _check_whole(numbers: Sequence[Any]) -> None:
    if wrong := [number for number in numbers if type(number) is not int]:
        raise ValueError(f"expected whole numbers, got {wrong[0]!r}")
