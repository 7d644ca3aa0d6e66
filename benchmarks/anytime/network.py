"""The live job: ResNet-20 on CIFAR-10, each network scored once and kept on disk with its processor seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from anytime.curves import Setting, covered
from anytime.lines import append_lines, read_lines
from autoprune.config import load
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.space import Candidate
from autoprune.run.session.session import Session, open_session

CONFIG = Path(__file__).parents[2] / "configs" / "cifar10_resnet20.yaml"
NAME = "ResNet-20 / CIFAR-10"

Record = dict[str, Any]


class Network:
    """The job's session, opened when something is measured that the table of `path` does not hold.

    One line of the table is a network: its levels, values by name and processor seconds; those of the report set have
    a table of their own beside it.
    """

    def __init__(self, data: str, weights: str, path: Path) -> None:
        settings = {
            "data.root": data,
            "data.calibrate": 500,
            "data.select": 1000,
            "model.weights": weights,
            "search.batch_norms": "batch",
            "compensation": "none",
            "run.tune": "{layout: channels_last, dtype: bfloat16}",
            "run.threads": 1,
        }
        self._job = load(CONFIG, [f"{key}={value}" for key, value in settings.items()]).resolve()
        self._session: Session | None = None
        self._scores = Table(path)
        self._reports = Table(path.with_suffix(".report.jsonl"))

    @property
    def session(self) -> Session:
        if self._session is None:
            self._session = open_session(self._job, lambda progress: None)
        return self._session

    def setting(self) -> Setting:
        return Setting(NAME, self.session.profiled, self.measure, truth)

    def measure(self, candidate: Candidate) -> Evaluation:
        """What the search sees: values on the selection images, with the processor seconds of the first time."""
        record = self._scores.get(candidate)
        if record is None:
            start = time.process_time()
            evaluation = self.session.scorer.score(candidate)
            seconds = time.process_time() - start
            if not evaluation.ok:
                raise SystemExit(f"{candidate} failed: {evaluation.cause}")
            values = {**evaluation.values, **self.session.problem.costs_of(candidate)}
            record = self._scores.add(candidate, {"values": values, "seconds": seconds})
        return Evaluation(candidate, record["values"], seconds=record["seconds"])

    def reported(self, front: Front) -> float:
        """Hypervolume on the test images of a front, each network built as it is deployed."""
        dense = front.dense["macs"]
        return covered([(self._report(member.candidate), member.values["macs"] / dense) for member in front])

    def _report(self, candidate: Candidate) -> float:
        record = self._reports.get(candidate)
        if record is None:
            network = self.session.scorer.network(candidate)
            values = self.session.scorer.measure(network, self.session.reported)
            record = self._reports.add(candidate, {"accuracy": values["accuracy"]})
        return float(record["accuracy"])


class Table:
    """JSON lines by levels, written as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = {tuple(record["levels"]): record for record in read_lines(path)}

    def get(self, candidate: Candidate) -> Record | None:
        return self._records.get(candidate.levels)

    def add(self, candidate: Candidate, values: Record) -> Record:
        record = {"levels": list(candidate.levels), **values}
        append_lines(self._path, [record])
        self._records[candidate.levels] = record
        return record


def truth(evaluation: Evaluation) -> tuple[float, float]:
    """On the selection images nothing is truer than what was measured."""
    return evaluation.values["accuracy"], evaluation.values["kl"]
