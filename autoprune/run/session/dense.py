"""Measures the dense network before a search, so that faults of model, data or fitness are found early."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from autoprune.core.statistics import wilson
from autoprune.errors import RunFailed, did_you_mean
from autoprune.measure.fitness import averages, reporting
from autoprune.measure.intact import Intact
from autoprune.measure.scorer import cause_of, measured
from autoprune.measure.top_classes import number_of_classes
from autoprune.run.records.columns import check_measured
from autoprune.run.session.job import Progress
from autoprune.run.session.problem import first_measured
from autoprune.run.session.session import Session

FAR = 0.05  # largest relative difference from an expected value that is not remarked, if there is no interval

_log = logging.getLogger(__name__)


def measure_dense(session: Session) -> dict[str, float]:
    """Measures the dense network on the selection set, before statistics are collected or candidates scored.

    Reports the values as progress, and warns if the accuracy is near chance or a value is far from the job's expected
    one.

    Raises:
        RunFailed: the network cannot be measured, or a name is not reported.
    """
    job = session.job
    session.progress(Progress("dense", 0, 1))
    try:
        fitness = reporting(job.fitness, job.guide)
        values = measured(session.model, session.select, fitness, first_measured(job), Intact())
    except Exception as error:  # from a user's model, data or fitness
        raise RunFailed(f"the dense network cannot be scored: {cause_of(error)}") from error
    check_reported(session, values)
    examples = sum(batch.examples for batch in session.select)
    said = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    session.progress(Progress("dense", 1, 1, f"{said} on {examples:,} selection examples"))
    _warn_near_chance(session, values, examples)
    _warn_unexpected(session, values, examples)
    return values


def check_reported(session: Session, values: Mapping[str, float]) -> None:
    """Checks the names that a fitness reports.

    Raises:
        RunFailed: a name in the job is not reported; the message has the closest names.
        ConfigError: the fitness reports the name of a cost or a column.
    """
    job = session.job
    named = [o.name for o in (*job.objectives, *session.problem.objectives)]
    named += [*job.expected, *(bound.name for bound in job.stop.target)]
    known = [*values, *session.dense_costs, *(["layer"] if job.guide == "layer" else [])]
    missing = [name for name in dict.fromkeys(named) if name not in known]
    if missing:
        hints = "".join(did_you_mean(name, known) for name in missing)
        raise RunFailed(
            f"expected the fitness to report {missing}, it reports {sorted(values)}{hints}. Use reported names for the "
            "objectives and the guide."
        )
    check_measured(values, session.dense_costs)


def _warn_near_chance(session: Session, values: Mapping[str, float], examples: int) -> None:
    """Warns of an accuracy that guessing would reach."""
    accuracy, classes = values.get("accuracy", -1.0), _classes(session)
    if not (0 <= accuracy <= 1 and classes > 1):
        return
    low, high = wilson(accuracy, examples)
    if low <= 1 / classes:
        _log.warning(
            "the dense network's accuracy on the selection set is %.4f (95 %% interval %.4f to %.4f), no better than "
            "guessing among %d classes. Are the weights loaded, the inputs normalised and the labels numbered as in "
            "training?",
            accuracy, low, high, classes,
        )  # fmt: skip
    elif accuracy <= (share := _largest_share(session)):
        _log.warning(
            "the dense network's accuracy on the selection set is %.4f; always answering the most frequent class would "
            "give %.4f. Are the weights loaded, and the labels numbered as in training?",
            accuracy, share,
        )  # fmt: skip


def _classes(session: Session) -> int:
    """The number of logits that the network returns; 0 if its output is not (b, classes)."""
    return number_of_classes(session.select[0].dense)


def _largest_share(session: Session) -> float:
    """The share of the selection examples with the most frequent label."""
    labels = [batch.target for batch in session.select if batch.target is not None]
    if not labels or any(x.dim() != 1 or x.is_floating_point() for x in labels):
        return 0.0
    counts = torch.unique(torch.cat(labels), return_counts=True)[1]
    return float(counts.max() / counts.sum())


def _warn_unexpected(session: Session, values: Mapping[str, float], examples: int) -> None:
    """Warns of a value far from the job's expected one: for a share of examples, one outside its interval."""
    for name, expected in session.job.expected.items():
        value = {**session.dense_costs, **values}[name]
        low, high = value - FAR * abs(value), value + FAR * abs(value)
        if name == "accuracy" and 0 <= value <= 1 and averages(session.job.fitness):
            low, high = wilson(value, examples)
        if not low <= expected <= high:
            _log.warning(
                "expected %s %.4g of the dense network, it has %.4g on the %d selection examples (expected %.4g to "
                "%.4g). Are the weights, the inputs' normalisation and the labels the same as in training?",
                name, expected, value, examples, low, high,
            )  # fmt: skip
