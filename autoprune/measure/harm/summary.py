"""The harm of pruning in plain values, as a front records it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from autoprune.core.statistics import wilson
from autoprune.measure.harm.predictions import Predictions
from autoprune.measure.harm.recalls import ClassRecall, bootstrapped, by_class, intensification, tallied

LISTED = 10  # largest number of classes and groups in a summary; a document of all classes has no bound
FLIPS = 20  # largest number of flipped examples that are listed
NAMED = 10  # largest number of classes without examples that are named


def summary(found: Predictions, listed: int | None = LISTED) -> dict[str, Any]:
    """The agreement of both networks and, with labels, the recalls, as plain values for JSON.

    Args:
        found: the predictions of both networks.
        listed: the largest number of classes and groups to list, those with the largest drops; None for all.

    Returns:
        `agreement` is the share of examples for which both networks predict the same class, and needs no labels.
        `recall_worst` is the least recall of a class, `recall_drop` the largest drop of a recall from the dense
        network's, `intensification` see recalls.intensification, `flipped` the share of labelled examples that were
        right before and are wrong after. The ends of 95 % intervals have the suffixes _low and _high. `classes` and
        `groups` have rows of number, examples, dense recall, recall, and both ends of the drop's interval. `flips` are
        the numbers of flipped examples in their set, those with the largest loss first. `notes` says in sentences what
        is left out.
    """
    agreement = float((found.dense == found.pruned).mean())
    low, high = wilson(agreement, len(found.dense))
    values = {"examples": len(found.dense), "agreement": agreement, "agreement_low": low, "agreement_high": high}
    if not found.labelled.any():
        return {**values, "notes": ["The examples have no labels that are classes, so recalls are not measured."]}
    return {**values, **_labelled(found, listed)}


def _labelled(found: Predictions, listed: int | None) -> dict[str, Any]:
    assert found.target is not None
    assert found.loss is not None
    rows = np.flatnonzero(found.labelled)
    target = found.target[rows]
    dense_right, pruned_right = found.dense[rows] == target, found.pruned[rows] == target
    table = tallied(target, dense_right, pruned_right, found.classes)
    classes = by_class(table)
    worst, least = classes[0], min(classes, key=lambda one: one.pruned)
    flips = rows[dense_right & ~pruned_right]
    first = flips[np.argsort(-found.loss[flips], kind="stable")][:FLIPS]
    slopes, notes = _intensification(table)
    unlabelled = len(found.dense) - len(rows)
    return {
        "recall_worst": least.pruned,
        "recall_worst_class": least.number,
        "recall_drop": worst.drop,
        "recall_drop_low": worst.interval[0],
        "recall_drop_high": worst.interval[1],
        "recall_drop_class": worst.number,
        **slopes,
        "flipped": len(flips) / len(rows),
        "flips": first.tolist(),
        "classes": rows_of(classes[:listed]),
        **_groups(found, rows, dense_right, pruned_right, listed),
        "notes": [
            *notes,
            *([f"{unlabelled} examples without a label are left out of the recalls."] if unlabelled else []),
            *_absent(table),
        ],
    }


def _intensification(table: np.ndarray) -> tuple[dict[str, float], list[str]]:
    """The intensification with its interval; if it is undefined, a sentence in their place."""
    slope, (low, high) = float(intensification(table)), bootstrapped(table)
    if np.isnan(slope):
        return {}, [
            "The intensification is undefined, as the dense network recalls all classes equally or one of the networks "
            "is never right."
        ]
    return {"intensification": slope, "intensification_low": low, "intensification_high": high}, []


def _groups(
    found: Predictions, rows: np.ndarray, dense_right: np.ndarray, pruned_right: np.ndarray, listed: int | None
) -> dict[str, Any]:
    """The accuracies by group, if the data have groups."""
    if found.group is None:
        return {}
    group = found.group[rows]
    table = tallied(group, dense_right, pruned_right, int(group.max()) + 1)
    return {"groups": rows_of(by_class(table)[:listed])}


def rows_of(classes: Sequence[ClassRecall]) -> list[list[float]]:
    """Plain rows of recalls: number, examples, dense recall, recall, and both ends of the drop's interval."""
    return [[one.number, one.examples, one.dense, one.pruned, *one.interval] for one in classes]


def _absent(table: np.ndarray) -> list[str]:
    """A sentence that names the classes without examples."""
    absent = np.flatnonzero(table.sum(axis=(1, 2)) == 0).tolist()
    if not absent:
        return []
    more = f" and {len(absent) - NAMED} more" if len(absent) > NAMED else ""
    which = f"{', '.join(map(str, absent[:NAMED]))}{more}"
    return [f"Without examples, and thus left out: class{'es' if len(absent) > 1 else ''} {which}."]
