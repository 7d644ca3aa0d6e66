"""What came of scoring one candidate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from autoprune.core.space import Candidate

Status = Literal["ok", "infeasible", "failed", "timeout"]


@dataclass(frozen=True)
class Evaluation:
    """Raw values by name for one candidate, and how they came about.

    `values` is complete and finite when `status` is "ok"; otherwise it may be empty and `cause` says in a sentence
    what happened. Values are as measured: no sign is flipped here.

    Where the values are means over examples, `examples` says over how many, else it is 0. `parts` holds the means over
    equal parts of the selection set, in order, of a value by name, for searchers that compare candidates part by part.
    `steps` says how long the network was trained before it was measured; 0 where it was not. `remark` says what a user
    should know about how it was measured; it is for the one who is told, and in no record.
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


def joined(before: Evaluation, after: Evaluation) -> Evaluation:
    """One evaluation of all examples, from one of the first and one of those since: means over examples both.

    It took the seconds of what came after. What failed stays as it is, and so does what was trained in between: it is
    another network, measured on all examples.
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
