"""Builds and measures the networks of a front, in this process or in a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.process import ending_forks
from autoprune.core.space import Candidate
from autoprune.errors import VerifyError
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import is_classification, with_interval
from autoprune.measure.harm.predictions import predictions
from autoprune.measure.harm.summary import summary
from autoprune.measure.scorer import Scorer, cause_of
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.bank.weights import emptied_weights
from autoprune.prune.compensation.reference import Reference
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.examples import Example
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.verify import verify_positions
from autoprune.run.results.deployed import Parts, deployed
from autoprune.run.session.session import Session
from autoprune.train.recovery.mimicking import Mimicking

_log = logging.getLogger(__name__)


class MemberParts(Parts, Protocol):
    """What members are built from and measured on."""

    @property
    def example(self) -> tuple[Example, ...]:
        """The calls in which a network is compared with its masked original."""

    @property
    def reported(self) -> Sequence[Batch]:
        """The batches of the report set."""


@dataclass(frozen=True)
class Measurements:
    """What is measured of a network of the front.

    Attributes:
        report: its values on the report set, with the ends of an interval that the fitness computes.
        as_built: its values on the selection set.
        verify_error: the largest relative difference from the masked original.
        fit: the result of its fit; empty if it is not fitted.
        steps: its number of training steps.
        emptied: names of its weights without any entry left.
        harm: its agreement with the dense network and its recalls on the report set (measure.harm.summary); empty if
            the fitness is not one of classes.
    """

    report: Mapping[str, float]
    as_built: Mapping[str, float]
    verify_error: float
    fit: Mapping[str, Any]
    steps: int
    emptied: tuple[str, ...]
    harm: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurements:
        """Makes measurements from their fields, as they are read from JSON."""
        return Measurements(**{**data, "emptied": tuple(data["emptied"])})


@dataclass(frozen=True)
class BuildAnswer(Evaluation):
    """The answer of a worker that built a network of the front, or could not.

    Attributes:
        measured: its measurements; None if it cannot be built, verified or measured.
        said: the sentence for the log in that case.
        warnings: sentences for the log.
    """

    measured: Measurements | None = None
    said: str = ""
    warnings: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class MemberBuilder:
    """The share of a session that builds and measures its members. It is picklable, so that workers can build them."""

    scorer: Scorer
    structure: Structure
    reference: Reference | None
    mimicking: Mimicking | None
    objectives: tuple[Objective, ...]
    example: tuple[Example, ...]
    reported: Sequence[Batch]

    @staticmethod
    def of(session: Session) -> MemberBuilder:
        """The builder of a session, which reads the report set."""
        objectives, example = tuple(session.objectives), tuple(session.example)
        reference, mimicking, reported = session.reference, session.mimicking, session.reported
        return MemberBuilder(session.scorer, session.structure, reference, mimicking, objectives, example, reported)

    def with_scorer(self, scorer: Scorer) -> MemberBuilder:
        return replace(self, scorer=scorer)

    def build(self, candidate: Candidate) -> BuildAnswer:
        """Builds and measures a network; a failure of any kind is recorded in the answer."""
        return build_answer(self, candidate)


@ending_forks()
def build_answer(parts: MemberParts, candidate: Candidate) -> BuildAnswer:
    """Builds and measures a network; a failure of any kind is recorded in the answer."""
    start, worker = time.perf_counter(), parts.scorer.worker
    warnings: list[str] = []
    try:
        _, measured = built_and_measured(parts, parts.scorer.subnet(candidate), warnings.append)
    except KeyboardInterrupt:  # from the user or a signal
        raise
    except BaseException as error:  # a user's code may raise anything
        cause, said, seconds = cause_of(error), _said(parts.scorer, candidate, error), time.perf_counter() - start
        return BuildAnswer(candidate, {}, "failed", cause, seconds, worker, said=said, warnings=tuple(warnings))
    seconds = time.perf_counter() - start
    return BuildAnswer(candidate, {}, "ok", "", seconds, worker, measured=measured, warnings=tuple(warnings))


def built_and_measured(
    parts: MemberParts, subnet: Subnet, warn: Callable[[str], None] = _log.warning
) -> tuple[nn.Module, Measurements]:
    """Builds a network as it is deployed, compares it with its masked original and measures it.

    It uses as many threads as the form in which candidates are scored, if that has a number, so that a worker computes
    the same bits as the driver.

    Raises:
        VerifyError: the outputs of the network and its masked original differ.
    """
    scorer = parts.scorer
    with torch_threads(scorer.scoring.form.threads):
        dense = scorer.bank.model
        network, steps, fit = deployed(parts, subnet, warn)
        report = verify_positions(
            dense, network, parts.structure, subnet.positions, parts.example, named_tensors(network)
        )
        if not report.ok:
            raise VerifyError(
                f"network {label(subnet.counts)}: expected pruned and masked outputs to agree to "
                f"{report.tolerance:.2g}, as the precision of this network allows, they differ by {report.worst:.2g} "
                f"relative{report.parted}. The network is left out. Keep the units named whole (`rules` with "
                "`min_keep: 1.0`) to search the rest, and report it with the model, as this may be a defect of "
                "autoprune."
            )
        measured = interval_scorer(scorer).measure(network, parts.reported)
        as_built = scorer.measure(network, scorer.select)
        emptied = tuple(emptied_weights(network, named_tensors(dense)))
        harm = harm_of(scorer, network, parts.reported)
    found = {} if fit is None else fit.to_json()
    return network, Measurements(measured, as_built, report.worst, found, steps, emptied, harm)


def harm_of(scorer: Scorer, network: nn.Module, reported: Sequence[Batch]) -> dict[str, Any]:
    """The harm of pruning on the report set; empty if the fitness is not one of classes."""
    return summary(predictions(network, reported)) if is_classification(scorer.fitness) else {}


def interval_scorer(scorer: Scorer) -> Scorer:
    """The scorer, whose fitness also computes an interval if it can."""
    fitness = with_interval(scorer.fitness)
    return scorer if fitness is scorer.fitness else replace(scorer, fitness=fitness)


def not_built(name: str, cause: str) -> str:
    """The sentence for a network that cannot be built and measured."""
    return f"network {name} cannot be built and measured: {cause}"


def label(counts: Mapping[str, int]) -> str:
    """The name of a network: its kept counts, joined by dashes."""
    return "-".join(str(count) for count in counts.values())


def _said(scorer: Scorer, candidate: Candidate, error: BaseException) -> str:
    if isinstance(error, VerifyError):
        return str(error)
    return not_built(label(scorer.space.counts(candidate)), cause_of(error))
