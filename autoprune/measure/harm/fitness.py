"""A fitness of classifiers that also measures classes, groups and corrupted inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.harm.corruption import SEVERITIES, corrupted, corruptions_of
from autoprune.measure.outputs import MEASURES, dense_tensor, logits_of, target_of, total
from autoprune.prune.devices.precision import precise_dtype

FAIR = ("accuracy", "kl", "worst_class", "group_gap", "agreement")  # reported without options

Logits = Sequence[torch.Tensor]  # those of each batch


def fair_classification(model: nn.Module, batches: Sequence[Batch], report: Sequence[str] = FAIR) -> dict[str, float]:
    """Measures a network that returns (b, classes) logits by class, by group and on corrupted inputs.

    Args:
        model: the network.
        batches: the examples.
        report: names of the measures to return: those of `classification`, and these. `worst_class` is the least recall
            of a class that has examples. `group_gap` is the difference between the largest and the smallest excessive
            loss of a group, in nats, where the excessive loss is the mean cross entropy of the group's examples less
            that of the dense network; the groups are those of the data, else the classes. `corrupted_accuracy` is the
            mean accuracy on images under noise, blur, contrast, brightness and pixelation in three severities each, or
            on texts with dropped tokens; it takes 15 passes, or 3, and is measured only if it is asked for.

    Returns:
        The measures by name.

    Raises:
        PluginError: a name in `report` is unknown, or the network does not return logits.
        DataError: there is no batch, a batch lacks what a measure needs, or the inputs are neither images nor tokens.
    """
    if unknown := [name for name in report if name not in MEASURES and name not in BY_GROUP]:
        known = ", ".join((*MEASURES, *BY_GROUP))
        raise PluginError(f"fair_classification can report {known}; got {', '.join(map(repr, unknown))}")
    if not batches:
        raise DataError("fair_classification needs at least one batch, got none")
    logits = [logits_of(model(*batch.inputs)) for batch in batches]
    count = sum(map(len, logits))
    values = {}
    for name in report:
        if name in MEASURES:
            values[name] = total([MEASURES[name](*pair) for pair in zip(logits, batches, strict=True)]) / count
        else:
            values[name] = BY_GROUP[name](model, batches, logits)
    return values


def worst_class(model: nn.Module, batches: Sequence[Batch], logits: Logits) -> float:
    """The least recall of a class that has examples."""
    hits = [own.argmax(dim=1) == target_of(batch) for own, batch in zip(logits, batches, strict=True)]
    classes = torch.cat([_classes(batch) for batch in batches])
    return float(_means(torch.cat(hits), classes, classes >= 0).min())


def group_gap(model: nn.Module, batches: Sequence[Batch], logits: Logits) -> float:
    """The largest less the smallest excessive loss of a group."""
    classes = [_classes(batch) for batch in batches]
    triples = zip(logits, batches, classes, strict=True)
    excess = [_losses(own, target) - _losses(dense_tensor(batch), target) for own, batch, target in triples]
    pairs = zip(batches, classes, strict=True)
    groups = torch.cat([target if batch.group is None else batch.group for batch, target in pairs])
    means = _means(torch.cat(excess), groups, torch.cat(classes) >= 0)
    return float(means.max() - means.min())


def corrupted_accuracy(model: nn.Module, batches: Sequence[Batch], logits: Logits) -> float:
    """The mean accuracy over all corruptions and severities."""
    return sum(map(sum, accuracies(model, batches).values())) / (len(corruptions_of(batches)) * len(SEVERITIES))


def accuracies(model: nn.Module, batches: Sequence[Batch]) -> dict[str, list[float]]:
    """The accuracy under each corruption, for each severity."""
    return {
        name: [accuracy(model, corrupted(batches, name, severity)) for severity in SEVERITIES]
        for name in corruptions_of(batches)
    }


def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """The share of examples whose largest logit is the target's."""
    right, count = [], 0
    for batch in batches:
        right.append(MEASURES["accuracy"](logits_of(model(*batch.inputs)), batch))
        count += batch.examples
    return total(right) / count


def _classes(batch: Batch) -> torch.Tensor:
    """(b,) the labels of a batch; those below 0 are of examples without one. DataError if they are no classes."""
    target = target_of(batch)
    if target.dim() != 1 or target.is_floating_point():
        raise DataError(
            "worst_class and group_gap need one class for each example as target, a whole number, got targets of "
            f"{tuple(target.shape)} of {str(target.dtype).removeprefix('torch.')}"
        )
    return target.long()


def _losses(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """(b,) cross entropies, 0 without a label."""
    return functional.cross_entropy(logits.float(), classes.clamp_min(-1), reduction="none", ignore_index=-1)


def _means(values: torch.Tensor, groups: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """The mean of the counted values of each group that has some. DataError if nothing is counted."""
    if not bool(counted.any()):
        raise DataError("worst_class and group_gap need labels, got none from 0 on in the whole set")
    values, groups = values[counted].to(precise_dtype(values.device)), groups[counted]
    members, counts = torch.unique(groups, return_inverse=True, return_counts=True)[1:]
    sums = torch.zeros(len(counts), dtype=values.dtype, device=values.device)
    means: torch.Tensor = sums.index_add_(0, members, values) / counts
    return means


BY_GROUP: dict[str, Callable[[nn.Module, Sequence[Batch], Logits], float]] = {
    "worst_class": worst_class,
    "group_gap": group_gap,
    "corrupted_accuracy": corrupted_accuracy,
}
