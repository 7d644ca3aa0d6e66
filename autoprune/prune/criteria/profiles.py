"""Computes profiles of units, for searchers that decide how much stays without measuring networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from autoprune.core.problem import Profile
from autoprune.core.unit import Unit, block_of, blocks_of
from autoprune.prune.criteria import ConsumerStatistics
from autoprune.prune.criteria.ordering import unit_consumers, unit_weights
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.moments import Moments

OUTLIER = 5.0  # multiple of the mean: Yin et al. 2024 (OWL), https://arxiv.org/abs/2310.05175, section 3.2, M = 5


def make_profiles(model: nn.Module, units: Sequence[Unit], moments: Mapping[str, Moments]) -> dict[str, Profile]:
    """The profile of every unit except branches, which have no positions to compare, by unit name.

    The profiles of units whose consumers have no moments lack fluctuation and outliers.
    """
    tensors = named_tensors(model)
    blocks = _numbered_blocks(units)
    profiles = {unit.name: _profile(unit, tensors, moments) for unit in units if not unit.is_branch}
    return {name: replace(profile, block=blocks.get(name)) for name, profile in profiles.items()}


def _numbered_blocks(units: Sequence[Unit]) -> dict[str, int]:
    """The number of the block that each unit is in; units that are in none are left out."""
    inside = [unit.name for unit in units if block_of(unit.name) != unit.name.partition("/")[0]]
    return {name: number for number, own in enumerate(blocks_of(inside).values()) for name in own}


def _profile(unit: Unit, tensors: Mapping[str, torch.Tensor], moments: Mapping[str, Moments]) -> Profile:
    produced = torch.cat([rows.double() for rows in unit_weights(unit, tensors).producers], dim=1)
    slot = unit.with_role("out")[0]
    shape = tuple(tensors[slot.tensor].movedim(slot.dim, 0).shape)
    magnitudes = produced.square().sum(dim=1).numpy()
    consumers = unit_consumers(unit, tensors, moments)
    if not consumers:
        return Profile(magnitudes, shape)
    return Profile(magnitudes, shape, _fluctuation(consumers), _outlier_share(consumers))


def _fluctuation(consumers: Sequence[ConsumerStatistics]) -> np.ndarray:
    """(n,) variances of each position's activation, averaged over all columns that read it."""
    columns = sum(consumer.columns.shape[1] for consumer in consumers)
    total = torch.stack([consumer.by_position(consumer.variance) for consumer in consumers]).sum(dim=0)
    fluctuation: np.ndarray = (total / columns).numpy()
    return fluctuation


def _outlier_share(consumers: Sequence[ConsumerStatistics]) -> float:
    """The share of values |W_ij| |X_j| that are above OUTLIER times their mean."""
    scores = torch.cat([(consumer.weight.abs() * consumer.square.sqrt()).flatten() for consumer in consumers])
    return float((scores > OUTLIER * scores.mean()).double().mean())
