"""What came of scoring one candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autoprune.core.space import Candidate

Status = Literal["ok", "infeasible", "failed", "timeout"]


@dataclass(frozen=True)
class Evaluation:
    """Raw values by name for one candidate, and how they came about.

    `values` is complete and finite when `status` is "ok"; otherwise it may be empty and `cause` says in a sentence
    what happened. Values are as measured: no sign is flipped here.
    """

    candidate: Candidate
    values: Mapping[str, float] = field(default_factory=dict)
    status: Status = "ok"
    cause: str = ""
    seconds: float = 0.0
    worker: str = ""

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
        )
