"""The classes that a network and the dense one predict for the same examples."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import DataError, UnsupportedModel
from autoprune.measure.batch import Batch
from autoprune.measure.outputs import described, main_tensor
from autoprune.measure.top_classes import number_of_classes, top_class
from autoprune.prune.devices.halving import halving
from autoprune.prune.modules.borrowed import evaluating, on_copies, seeded


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of a network and of the dense one for n examples, in their order.

    Attributes:
        dense: (n,) the classes that the dense network predicts.
        pruned: (n,) the classes that the other network predicts.
        target: (n,) the labels, -1 for an example without one; None without labels.
        loss: (n,) the cross entropy of the other network with the label, in nats, 0 without one; None without labels.
        group: (n,) the group of each example; None if the data have none.
        classes: the number of classes.
    """

    dense: np.ndarray
    pruned: np.ndarray
    target: np.ndarray | None
    loss: np.ndarray | None
    group: np.ndarray | None
    classes: int

    @property
    def labelled(self) -> np.ndarray:
        """(n,) whether each example has a label."""
        return np.zeros(len(self.dense), bool) if self.target is None else self.target >= 0


def predictions(network: nn.Module, batches: Sequence[Batch]) -> Predictions:
    """The predictions of a network on batches that hold the dense network's outputs.

    Raises:
        DataError: there is no batch, or one lacks the dense network's outputs.
        UnsupportedModel: the networks do not return (b, classes) scores.
    """
    if not batches:
        raise DataError("expected at least one batch to compare networks on, got none")
    for batch in batches:
        check_scores(batch)
    with evaluating(network), on_copies(network), torch.no_grad(), seeded(0):
        parts = halving(functools.partial(_parts, network), batches, stage="the predictions")
    dense, pruned = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    target, loss, group = (_joined([part[index] for part in parts]) for index in (2, 3, 4))
    return Predictions(dense, pruned, target, loss, group, number_of_classes(main_tensor(batches[0].dense)))


def _joined(arrays: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The arrays of all batches as one; None if some are missing."""
    present = [array for array in arrays if array is not None]
    return np.concatenate(present) if len(present) == len(arrays) else None


def check_scores(batch: Batch) -> None:
    """Raises an error if a batch lacks the dense network's outputs, or these are no scores of classes."""
    if batch.dense is None:
        raise DataError("expected batches with the dense network's outputs. Fill them in: scorer.with_dense_outputs")
    if not number_of_classes(main_tensor(batch.dense)):
        raise UnsupportedModel(
            "expected a network that returns (b, classes) scores, whose largest is the prediction, to compare its "
            f"predictions by class, got {described(batch.dense)}. Measure such a network by its own fitness."
        )


def _parts(network: nn.Module, batches: Sequence[Batch]) -> list[tuple[Any, ...]]:
    return [_part(network, batch) for batch in batches]


def _part(network: nn.Module, batch: Batch) -> tuple[Any, ...]:
    """Dense and pruned classes, labels, losses and groups of a batch, as arrays; None for those it does not have."""
    logits: torch.Tensor = main_tensor(network(*batch.inputs))
    found = [top_class(main_tensor(batch.dense)), logits.argmax(dim=1), labels(batch), None, batch.group]
    if found[2] is not None:
        found[3] = functional.cross_entropy(logits.float(), found[2], reduction="none", ignore_index=-1)
    return tuple(None if x is None else x.cpu().numpy() for x in found)


def labels(batch: Batch) -> torch.Tensor | None:
    """(b,) the labels of a batch, -1 where the target is no class; None if its target does not consist of classes."""
    target, classes = batch.target, number_of_classes(main_tensor(batch.dense))
    if target is None or target.dim() != 1 or target.is_floating_point() or target.dtype is torch.bool:
        return None
    return torch.where((target >= 0) & (target < classes), target.long(), -1)
