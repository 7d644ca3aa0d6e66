"""Masks: the entries of one weight that stay, chosen by scores.

A weight is (g, o, k) float64: a convolution has g groups with inputs of their own, each with o outputs and k columns.
The dimension g may be missing. With `groups`, the (k,) group of each column, a quota applies to every output and group
of columns, otherwise to the whole weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from autoprune.errors import PluginError
from autoprune.prune.moments.moments import Moments

Scores = Callable[[torch.Tensor, Moments | None], torch.Tensor]  # -> (g, o, k); entries with larger scores stay longer


def magnitude(weight: torch.Tensor, moments: Moments | None) -> torch.Tensor:
    """The scores |W|: absolute values."""
    return weight.abs()


def wanda(weight: torch.Tensor, moments: Moments | None) -> torch.Tensor:
    """The scores |W| |X|: absolute values times the norm of their inputs; without moments, the magnitudes.

    Source:
        Sun et al. 2024 (https://arxiv.org/abs/2306.11695, equation 1). Departure: we apply the quota to the whole
        layer, they apply it to every output.
    """
    if moments is None:
        return magnitude(weight, None)
    power = moments.squares + (moments.mean.square() if moments.centred else 0.0)
    return weight.abs() * power.clamp_min(0.0).sqrt()[:, None]


MASKS: dict[str, Scores | None] = {"magnitude": magnitude, "wanda": wanda, "obs": None}  # obs also updates weights


def checked(scores: object, weight: torch.Tensor, name: str) -> torch.Tensor:
    """Checks a plug-in's scores for the weight `name`, and returns them on the CPU.

    Raises:
        PluginError: the scores are not a finite tensor of the weight's shape.
    """
    where = f"mask rule on {name!r}: expected {tuple(weight.shape)} finite scores"
    if not isinstance(scores, torch.Tensor) or scores.shape != weight.shape or not torch.isfinite(scores).all():
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise PluginError(f"{where}, got {got}")
    return scores.detach().cpu()


def keep_largest(scores: torch.Tensor, count: int, groups: torch.Tensor | None = None) -> torch.Tensor:
    """Booleans that are True for the entries that stay: the `count` largest of all, or of each group in each row.

    Of equal entries, those with lower indices stay. A group with fewer entries than `count` keeps all of them.
    """
    if groups is None:
        order = torch.argsort(scores.flatten(), descending=True, stable=True)
        stays = torch.zeros(scores.numel(), dtype=torch.bool)
        stays[order[:count]] = True
        return stays.view_as(scores)
    order = torch.argsort(scores, dim=-1, descending=True, stable=True)
    order = order.gather(-1, torch.argsort(groups[order], dim=-1, stable=True))  # by group, largest first
    sizes = torch.bincount(groups)
    place = torch.arange(len(groups)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)  # within its group
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, (place < count).expand_as(order))


def groups_of(inputs: int, kernel: int, group: int) -> torch.Tensor:
    """(k,) groups of the columns of a flattened (o, inputs, kernel) weight.

    A group consists of `group` consecutive inputs at the same kernel position.
    """
    first = torch.arange(inputs)[:, None] // group
    return (torch.arange(kernel) * math.ceil(inputs / group) + first).flatten()
