"""Masks of weights: True for the entries that stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.prune.bank.masks import keep_largest
from autoprune.prune.bank.weight_units import plain_weights
from autoprune.train.rounds.options import Scope

Masks = dict[str, torch.Tensor]


def whole_masks(network: nn.Module, match: Sequence[str], skip: Sequence[str]) -> Masks:
    """Masks that keep every entry of the weights whose names match.

    Raises:
        ConfigError: no weight of a linear or convolutional module matches.
    """
    names = plain_weights(network)
    chosen = [n for n in names if _matches(n, match) and not _matches(n, skip)]
    if not chosen:
        raise ConfigError(
            f"weights: expected patterns of names of weights to prune, {[*match]} without {[*skip]} match none of "
            f"{names or 'the network, which has no linear or convolutional modules'}"
        )
    return {name: torch.ones_like(network.get_parameter(name), dtype=torch.bool) for name in chosen}


def narrowed(masks: Mapping[str, torch.Tensor], network: nn.Module, sparsity: float, scope: Scope) -> Masks:
    """Masks within these that keep the entries of largest absolute value.

    Args:
        masks: the masks so far.
        network: the network with the weights.
        sparsity: the share of all entries that is zero then.
        scope: whether the entries of all weights are compared, or those of each weight.
    """
    scores = {name: _scores(network.get_parameter(name), mask) for name, mask in masks.items()}
    if scope == "layer":
        return {name: _largest(own, sparsity).to(masks[name].device) for name, own in scores.items()}
    together = _largest(torch.cat([own.flatten() for own in scores.values()]), sparsity)
    parts = torch.split(together, [own.numel() for own in scores.values()])
    return {name: part.view_as(masks[name]).to(masks[name].device) for name, part in zip(masks, parts, strict=True)}


def random_masks(masks: Mapping[str, torch.Tensor], seed: int) -> Masks:
    """Masks with as many entries of each weight, at random places."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, mask in masks.items():
        drawn = torch.rand(mask.shape, generator=generator)
        found[name] = keep_largest(drawn, int(mask.sum())).to(mask.device)
    return found


def kept(masks: Mapping[str, torch.Tensor]) -> dict[str, int]:
    """The number of entries that stay, by name of the weight."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


def _scores(weight: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Absolute values, below all of them where an entry was removed."""
    return weight.detach().abs().masked_fill(~mask, -1.0).cpu()


def _largest(scores: torch.Tensor, sparsity: float) -> torch.Tensor:
    return keep_largest(scores, round((1 - sparsity) * scores.numel()))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
