"""The result of scoring one candidate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autoprune.core.space import Candidate, Levels

Status = Literal["ok", "infeasible", "failed", "timeout"]


@dataclass(frozen=True)
class Evaluation:
    """The measured values of one candidate, and how they were obtained.

    Attributes:
        candidate: the candidate that was scored.
        values: raw measurements by name, no sign flipped. Complete and finite if `status` is "ok"; may be empty
            otherwise.
        status: "ok", "infeasible", "failed" or "timeout".
        cause: a sentence that explains any status but "ok".
        seconds: how long scoring took.
        worker: the name of the worker that scored it.
        examples: the number of examples that the values are means over; 0 if they are not means over examples.
        parts: means of a value over equal consecutive parts of the selection set, by name, for searchers that compare
            candidates part by part.
        steps: the number of training steps before the measurement; 0 without training.
        remark: a note for the user on how the network was measured; it is not recorded.
    """

    candidate: Candidate
    values: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    cause: str = ""
    seconds: float = 0.0
    worker: str = ""
    examples: int = 0
    parts: Mapping[str, Sequence[float]] = field(default_factory=dict)
    steps: int = 0
    remark: str = field(default="", compare=False)

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """The evaluation as plain data for JSON."""
        return {
            "levels": list(self.candidate.levels),
            "fidelity": self.candidate.fidelity,
            "values": dict(self.values),
            "status": self.status,
            "cause": self.cause,
            "seconds": self.seconds,
            "worker": self.worker,
            **({"examples": self.examples} if self.examples else {}),
            **({"parts": {name: list(means) for name, means in self.parts.items()}} if self.parts else {}),
            **({"steps": self.steps} if self.steps else {}),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Evaluation:
        """Makes an evaluation from the result of `to_json`."""
        return Evaluation(
            Candidate(tuple(data["levels"]), data["fidelity"]),
            dict(data["values"]),
            data["status"],
            data["cause"],
            data["seconds"],
            data["worker"],
            data.get("examples", 0),
            dict(data.get("parts", {})),
            data.get("steps", 0),
        )


def partial_scores(evaluations: Iterable[Evaluation]) -> str:
    """How many networks were scored below full fidelity only, and what that saved; empty if there are none."""
    reached: dict[Levels, float] = {}
    for evaluation in evaluations:
        if evaluation.ok:
            levels, fidelity = evaluation.candidate.levels, evaluation.candidate.fidelity
            reached[levels] = max(fidelity, reached.get(levels, 0.0))
    partial = [fidelity for fidelity in reached.values() if fidelity < 1]
    if not partial:
        return ""
    saved = sum(1 - fidelity for fidelity in partial) / len(reached)
    return (
        f"{len(partial):,} of {len(reached):,} networks were scored in part only, which saved {saved:.0%} of what full "
        "scores of all take"
    )


def merged(before: Evaluation, after: Evaluation) -> Evaluation:
    """Merges an evaluation of the first examples with one of the remaining ones; both hold means over examples.

    `seconds` is that of `after`. A failed `after` is returned as it is, and so is one whose network was trained in
    between: it is another network, measured on all examples.
    """
    candidate = replace(after.candidate, since=0.0)
    if not after.ok or after.steps:
        return replace(after, candidate=candidate)
    if not after.values.keys() <= before.values.keys() or before.parts.keys() != after.parts.keys():
        cause = f"expected the same values of all examples, got {sorted(after.values)} after {sorted(before.values)}"
        return replace(after, candidate=candidate, values={}, status="failed", cause=cause)
    examples = before.examples + after.examples
    share = before.examples / examples
    values = {name: share * before.values[name] + (1 - share) * value for name, value in after.values.items()}
    parts = {name: (*before.parts[name], *means) for name, means in after.parts.items()}
    return replace(after, candidate=candidate, values=values, examples=examples, parts=parts)
