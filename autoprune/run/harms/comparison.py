"""Compares built networks with the dense one: recalls, losses of groups, corrupted inputs, spreads of layers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.measure.batch import Batch, gathered
from autoprune.measure.harm.corruption import corruptions_of
from autoprune.measure.harm.fitness import accuracies
from autoprune.measure.harm.predictions import Predictions, predictions
from autoprune.measure.harm.second_order import Change, expand
from autoprune.measure.harm.spread import COLLAPSED, spread_ratios, spreads
from autoprune.measure.harm.summary import summary
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.criteria.magnitudes import pq_index
from autoprune.prune.devices.halving import halving
from autoprune.prune.modules.borrowed import evaluating, on_copies, seeded

EXPLAINED = 10  # largest number of groups whose gradient and curvature are computed: those that lose most and least
GROUP_EXAMPLES = 128  # largest number of examples of a group for these
SPREAD_EXAMPLES = 256  # number of examples, at least, for the spreads of layers


@dataclass(frozen=True, eq=False)
class Comparison:
    """The dense network and the report set that built networks are compared on.

    Attributes:
        model: the dense network.
        batches: the batches of the report set, with the dense network's outputs.
    """

    model: nn.Module
    batches: Sequence[Batch]

    def of(self, network: nn.Module, subnet: Subnet) -> dict[str, Any]:
        """The harm of a network as plain values: those of measure.harm.summary for all classes, and more.

        Returns:
            With labels also `losses`, the mean excessive loss of each group with its gradient norm, curvature and
            second-order estimate; `group_gap`, the largest less the smallest; and `corrupted`, the accuracies by
            corruption. `spread_least` is the least ratio of a layer's deviation to that in the dense network, and
            `collapsed` has the layers in which it is below COLLAPSED. `pq_index` has the PQ index of each matrix or
            kernel, a pair of the dense network's and this one's: the nearer to 1, the more of it could go.
        """
        found = predictions(network, self.batches)
        values = summary(found, listed=None)
        layers = spread_ratios(spreads(network, self._some), self._spreads, _kept(subnet))
        values["spread_least"] = min(layers.values(), default=1.0)
        values["collapsed"] = {name: ratio for name, ratio in layers.items() if ratio < COLLAPSED}
        values["pq_index"] = _pq_indices(self.model, network)
        if found.labelled.any():
            values |= self._losses(found, removed_weights(self.model, network, subnet))
            values |= self._corrupted(network, values["notes"])
        return values

    @cached_property
    def _dense(self) -> Predictions:
        return predictions(self.model, self.batches)

    @cached_property
    def _some(self) -> Sequence[Batch]:
        counts = np.cumsum([batch.examples for batch in self.batches])
        return self.batches[: int(np.searchsorted(counts, SPREAD_EXAMPLES)) + 1]

    @cached_property
    def _spreads(self) -> dict[str, torch.Tensor]:
        return spreads(self.model, self._some)

    @cached_property
    def _dense_corrupted(self) -> dict[str, list[float]]:
        return self._accuracies(self.model)

    def _accuracies(self, network: nn.Module) -> dict[str, list[float]]:
        with evaluating(network), on_copies(network), torch.no_grad(), seeded(0):
            return halving(functools.partial(accuracies, network), self.batches, stage="corrupted accuracies")

    def _corrupted(self, network: nn.Module, notes: list[str]) -> dict[str, Any]:
        """The accuracies by corruption and severity, their mean, and the mean as a share of the dense network's."""
        try:
            corruptions_of(self.batches)
        except DataError as error:
            notes.append(f"Corrupted inputs are not measured: {error}")
            return {}
        own, dense = self._accuracies(network), self._dense_corrupted
        mean, dense_mean = (float(np.mean([*values.values()])) for values in (own, dense))
        relative = {"corrupted_relative": mean / dense_mean} if dense_mean > 0 else {}
        return {"corrupted": own, "corrupted_dense": dense, "corrupted_accuracy": mean, **relative}

    def _losses(self, found: Predictions, change: Change) -> dict[str, Any]:
        """The mean excessive loss by group, the largest first, with the second-order terms of some groups."""
        rows = np.flatnonzero(found.labelled)
        groups = _groups(found)[rows]
        assert found.loss is not None
        assert self._dense.loss is not None
        excess = (found.loss.astype(float) - self._dense.loss)[rows]
        members = {int(group): rows[groups == group] for group in np.unique(groups)}
        means = {group: float(excess[groups == group].mean()) for group in members}
        order = sorted(means, key=lambda group: -means[group])
        explained = (
            {*order[: EXPLAINED // 2], *order[len(order) - EXPLAINED // 2 :]} if len(order) > EXPLAINED else order
        )
        lines = []
        for group in order:
            line = {"group": group, "examples": len(members[group]), "excess": means[group]}
            if group in explained:
                terms = expand(self.model, self._rows(members[group][:GROUP_EXAMPLES]), [change])
                line |= {
                    "gradient_norm": terms.gradient_norm,
                    "curvature": terms.curvature,
                    "estimate": terms.changes[0],
                }
            lines.append(line)
        return {"losses": lines, "group_gap": means[order[0]] - means[order[-1]]}

    def _rows(self, rows: np.ndarray) -> Batch:
        """The examples with these numbers as one batch; of texts, those of the first one's length."""
        parts, start = [], 0
        for batch in self.batches:
            inside = torch.from_numpy(rows[(rows >= start) & (rows < start + batch.examples)] - start)
            if len(inside):
                parts.append(batch._replace(dense=None).placed(_taking(inside)))
            start += batch.examples
        return gathered([part for part in parts if part.inputs[0].shape[1:] == parts[0].inputs[0].shape[1:]])


def _pq_indices(model: nn.Module, network: nn.Module) -> dict[str, tuple[float, float]]:
    """The PQ indices (Diao et al. 2023) of each weight of two and more dimensions, in both networks."""
    own = {name: weight for name, weight in network.named_parameters() if weight.dim() > 1 and weight.numel()}
    both = {name: (weight, own[name]) for name, weight in model.named_parameters() if name in own}
    return {name: (_pq(dense), _pq(pruned)) for name, (dense, pruned) in both.items()}


def _pq(weight: torch.Tensor) -> float:
    return float(pq_index(weight.detach().float().cpu().flatten()[None]))  # float64, which some devices do not have


def _groups(found: Predictions) -> np.ndarray:
    """(n,) the group of each example: that of the data, else its class."""
    groups = found.target if found.group is None else found.group
    assert groups is not None
    return groups


def _taking(inside: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: x[inside.to(x.device)]


def _kept(subnet: Subnet) -> Mapping[str, np.ndarray]:
    """The kept output channels of each layer that loses some."""
    weights = {name: dims[0] for name, dims in subnet.indices.items() if name.endswith(".weight") and 0 in dims}
    return {name.removesuffix(".weight"): kept for name, kept in weights.items()}


def removed_weights(model: nn.Module, network: nn.Module, subnet: Subnet) -> dict[str, torch.Tensor]:
    """The change that removal alone makes to the dense network's weights: those that are removed become zero.

    Weights of removed branches, and entries that the network has as zeros, are removed as well.
    """
    present = dict(network.named_parameters())
    changes = {}
    for name, weight in model.named_parameters():
        stays = torch.full_like(weight, float(name in present), dtype=torch.float32)
        for dim, kept in subnet.indices.get(name, {}).items():
            gone = np.setdiff1d(np.arange(weight.shape[dim]), kept)
            stays.index_fill_(dim, torch.from_numpy(gone).to(weight.device), 0.0)
        if name in subnet.sparse and name in present and present[name].shape == weight.shape:
            stays *= present[name].detach() != 0
        if not bool(stays.all()):
            changes[name] = (stays - 1) * weight.detach().float()
    return changes
