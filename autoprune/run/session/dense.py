"""The dense network, measured before anything is searched: what is wrong with model, data or fitness shows here."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from autoprune.core.statistics import wilson
from autoprune.errors import RunFailed, did_you_mean
from autoprune.measure.fitness import averages, reporting
from autoprune.measure.intact import Intact
from autoprune.measure.scorer import cause_of, measured
from autoprune.run.records.columns import check_measured
from autoprune.run.session.job import Progress
from autoprune.run.session.problem import first_measured
from autoprune.run.session.session import Session

FAR = 0.05  # relative; a value that has no interval is far from an expected one beyond this

_log = logging.getLogger(__name__)


def measure_dense(session: Session) -> dict[str, float]:
    """What the fitness says of the dense network on the selection set, before statistics or scores are made.

    Tells the values as progress, and warns where they look broken: an accuracy near chance, or other values than the
    job expects. RunFailed where the network cannot be measured or a name is not reported.
    """
    job = session.job
    session.progress(Progress("dense", 0, 1))
    try:
        fitness = reporting(job.fitness, job.guide)
        values = measured(session.model, session.select, fitness, first_measured(job), Intact())
    except Exception as error:  # of a user's model, data or fitness
        raise RunFailed(f"the dense network cannot be scored: {cause_of(error)}") from error
    check_reported(session, values)
    examples = sum(batch.examples for batch in session.select)
    said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    session.progress(Progress("dense", 1, 1, f"{said} on {examples:,} selection examples"))
    _warn_near_chance(session, values, examples)
    _warn_unexpected(session, values, examples)
    return values


def check_reported(session: Session, values: Mapping[str, float]) -> None:
    """RunFailed, with the closest names, where a fitness does not report what the job names; ConfigError where it
    reports the name of a cost or a column.
    """
    job = session.job
    named = [o.name for o in (*job.objectives, *session.problem.objectives)]
    named += [*job.expected, *(bound.name for bound in job.stop.target)]
    known = [*values, *session.dense_costs, *(["layer"] if job.guide == "layer" else [])]
    missing = [name for name in dict.fromkeys(named) if name not in known]
    if missing:
        hints = "".join(did_you_mean(name, known) for name in missing)
        raise RunFailed(
            f"expected the fitness to report {missing}, it reports {sorted(values)}{hints}. Name the objectives and "
            "the guide after what it reports."
        )
    check_measured(values, session.dense_costs)


def _warn_near_chance(session: Session, values: Mapping[str, float], examples: int) -> None:
    """Warns of an accuracy that guessing would have."""
    accuracy, classes = values.get("accuracy", -1.0), _classes(session)
    if not (0 <= accuracy <= 1 and classes > 1):
        return
    low, high = wilson(accuracy, examples)
    if low <= 1 / classes:
        _log.warning(
            "the dense network's accuracy on the selection set is %.4f (%.4f to %.4f in 95 of 100 cases), which "
            "guessing among %d classes would have, too. Are the weights loaded, the inputs normalised and the labels "
            "numbered as in training?",
            accuracy, low, high, classes,
        )  # fmt: skip
    elif accuracy <= (share := _largest_share(session)):
        _log.warning(
            "the dense network's accuracy on the selection set is %.4f; always answering the most frequent class would "
            "have %.4f. Are the weights loaded, and the labels numbered as in training?",
            accuracy, share,
        )  # fmt: skip


def _classes(session: Session) -> int:
    """How many logits the network returns; 0 where its output is not (b, classes)."""
    output = session.select[0].dense
    return output.shape[1] if isinstance(output, torch.Tensor) and output.dim() == 2 else 0


def _largest_share(session: Session) -> float:
    """The share of the selection examples that have the most frequent label."""
    labels = [batch.target for batch in session.select if batch.target is not None]
    if not labels or any(x.dim() != 1 or x.is_floating_point() for x in labels):
        return 0.0
    counts = torch.unique(torch.cat(labels), return_counts=True)[1]
    return float(counts.max() / counts.sum())


def _warn_unexpected(session: Session, values: Mapping[str, float], examples: int) -> None:
    """Warns of a value that is far from what the job expects: outside its interval, where it is a share of examples."""
    for name, expected in session.job.expected.items():
        value = {**session.dense_costs, **values}[name]
        low, high = value - FAR * abs(value), value + FAR * abs(value)
        if name == "accuracy" and 0 <= value <= 1 and averages(session.job.fitness):
            low, high = wilson(value, examples)
        if not low <= expected <= high:
            _log.warning(
                "expected %s %.4g of the dense network, it has %.4g on the %d selection examples (%.4g to %.4g would "
                "be no surprise). Are the weights, the inputs' normalisation and the labels those of the training?",
                name, expected, value, examples, low, high,
            )  # fmt: skip
