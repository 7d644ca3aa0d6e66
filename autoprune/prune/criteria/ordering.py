"""Orders the positions of units: collects a criterion's inputs for each unit, and falls back to l2 without moments."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.core.unit import Slot, Unit
from autoprune.prune.criteria import (
    ConsumerStatistics,
    Criterion,
    UnitStatistics,
    UnitWeights,
    needs_of,
    order_positions,
)
from autoprune.prune.criteria.contract import PRODUCERS
from autoprune.prune.criteria.elimination import output_energy
from autoprune.prune.criteria.experts import reap
from autoprune.prune.criteria.loss import collect_gradients
from autoprune.prune.criteria.magnitudes import l2
from autoprune.prune.criteria.routing import collect_routing
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import consumers_of
from autoprune.prune.moments.moments import Moments
from autoprune.prune.moments.refit import columns_of, seen_weight
from autoprune.prune.structure.structure import Structure


def order_units(
    model: nn.Module,
    structure: Structure,
    units: Sequence[Unit],
    criterion: Criterion,
    moments: Mapping[str, Moments],
    batches: Sequence[tuple[torch.Tensor, ...]],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Orders the positions of units by a criterion.

    Units without the consumer moments that the criterion needs are ordered by l2, or by reap if they are experts.

    Args:
        model: the dense network.
        structure: its structure.
        units: the units to order.
        criterion: gives the scores.
        moments: second moments, by name of the consumer's weight.
        batches: inputs of the model, which are run again if the criterion needs statistics of the loss or of experts.

    Returns:
        (n,) positions by unit name, those that stay longest first, and remarks by unit name.
    """
    wanted = needs_of(criterion)
    orders = {unit.name: np.arange(unit.width) for unit in units if unit.is_branch}
    notes = {}
    also = wanted | {"routing"} if "moments" in wanted else wanted
    for unit, weights, statistics in criterion_inputs(model, structure, units, moments, batches, also):
        own = criterion
        if "moments" in wanted and not statistics.consumers and not ("routing" in wanted and statistics.routed):
            own = reap if statistics.routed else l2
            notes[unit.name] = f"ordered by {own.__name__}, as none of its consumers has second moments"
        orders[unit.name] = order_positions(own, weights, statistics, unit.name).numpy()
    return orders, notes


def criterion_inputs(
    model: nn.Module,
    structure: Structure,
    units: Sequence[Unit],
    moments: Mapping[str, Moments],
    batches: Sequence[tuple[torch.Tensor, ...]],
    wanted: Collection[str],
) -> Iterator[tuple[Unit, UnitWeights, UnitStatistics]]:
    """Yields each unit with the inputs of a criterion that declares the needs `wanted`.

    Branches are left out, because they have no order. Statistics of the loss, and those of experts, take passes over
    the batches.
    """
    tensors, scales = named_tensors(model), batch_norm_scales(model)
    ordered = [unit for unit in units if not unit.is_branch]
    loss: dict[str, UnitStatistics] = {}
    routed = collect_routing(model, structure, ordered, batches) if "routing" in wanted else {}
    if ordered and set(wanted) - {"moments", "routing"}:
        loss = collect_gradients(model, structure, ordered, batches, wanted)
    for unit in ordered:
        consumers = unit_consumers(unit, tensors, moments)
        produced = energy_shares(unit, tensors, moments)
        of_loss = loss.get(unit.name, UnitStatistics(()))
        statistics = replace(of_loss, consumers=consumers, produced=produced, routed=routed.get(unit.name))
        yield (
            unit,
            unit_weights(unit, tensors, scales),
            copy.deepcopy(statistics),
        )  # a criterion may write to its inputs


def order_unit(
    criterion: Criterion,
    unit: Unit,
    tensors: Mapping[str, torch.Tensor],
    statistics: UnitStatistics,
    scales: Collection[str] = (),
) -> np.ndarray:
    """Orders the positions of one unit by a criterion; a branch has only one position.

    Args:
        criterion: gives the scores.
        unit: the unit.
        tensors: the model's tensors, by name.
        statistics: the unit's statistics.
        scales: names of the tensors that scale the output of a batch norm.

    Returns:
        (n,) positions, those that stay longest first.
    """
    if unit.is_branch:
        return np.arange(unit.width)
    return order_positions(criterion, unit_weights(unit, tensors, scales), statistics, unit.name).numpy()


def batch_norm_scales(model: nn.Module) -> frozenset[str]:
    """The names of the weights of all batch norms."""
    norms = {id(norm.weight) for norm in model.modules() if isinstance(norm, _BatchNorm) and norm.affine}
    return frozenset(name for name, tensor in named_tensors(model).items() if id(tensor) in norms)


def unit_weights(unit: Unit, tensors: Mapping[str, torch.Tensor], scales: Collection[str] = ()) -> UnitWeights:
    """The weights that produce, consume and scale each position of a unit."""

    def rows(slot: Slot) -> torch.Tensor:
        indices = torch.from_numpy(slot.span.indices(np.arange(unit.width)))  # (n, m)
        tensor = tensors[slot.tensor].detach().float().cpu().movedim(slot.dim, 0)
        return tensor[indices].flatten(1)

    return UnitWeights(
        tuple(rows(slot) for slot in unit.with_role("out")),
        tuple(rows(slot) for slot in unit.with_role("in")),
        tuple(rows(slot) for slot in unit.with_role("along") if slot.tensor in scales),
    )


def unit_consumers(
    unit: Unit, tensors: Mapping[str, torch.Tensor], moments: Mapping[str, Moments]
) -> tuple[ConsumerStatistics, ...]:
    """The statistics of each consumer of a unit that has moments; for a grouped consumer, of each group."""
    names = [name for name in consumers_of([unit]) if name in moments]
    return tuple(group for name in names for group in _groups(unit, name, tensors[name], moments[name]))


def energy_shares(
    unit: Unit, tensors: Mapping[str, torch.Tensor], moments: Mapping[str, Moments]
) -> torch.Tensor | None:
    """The shares of head dimensions in the energy of their producers' outputs.

    They are None for other units, and for those that are only values, whose damage their consumers know.
    """
    shares = []
    for slot in unit.with_role("out") if unit.kind == "head_dim" else ():
        own = moments.get(slot.tensor)
        if own is not None and slot.dim != own.design.input_dim and own.design.groups == 1:
            seen = seen_weight(tensors[slot.tensor], own)[0]
            energy = ((seen @ own.gram[0].double()) * seen).sum(dim=1).reshape(tensors[slot.tensor].shape[slot.dim], -1)
            mine = energy.sum(dim=1)[torch.from_numpy(slot.span.indices(np.arange(unit.width)))].sum(dim=1)
            shares.append(mine / mine.sum() if mine.sum() > 0 else mine)
    return torch.stack(shares) if len(shares) >= PRODUCERS else None


def _groups(unit: Unit, name: str, weight: torch.Tensor, moments: Moments) -> list[ConsumerStatistics]:
    """The statistics of each group of a consumer.

    Moments of channels are averaged over kernel positions, so that they are the mean square and the variance of an
    input; the mean becomes a root mean square over kernel positions, with the sign of the mean.
    """
    columns = _columns(unit, name, weight.shape[moments.design.input_dim], moments)
    gram = moments.gram
    mean = moments.mean.reshape(*gram.shape[:2], -1)  # (g, d, summed kernel positions)
    if mean.shape[2] > 1:
        gram = gram / mean.shape[2]
    seen = seen_weight(weight, moments).to(gram.dtype)
    level = mean.mean(dim=2).sign() * mean.square().mean(dim=2).sqrt()
    energy = None if len(gram) == 1 else sum(map(output_energy, seen, gram))
    return [
        ConsumerStatistics(seen[group], gram[group], own, level[group], moments.centred, energy, moments.ridge)
        for group, own in columns.items()
    ]


def _columns(unit: Unit, name: str, inputs: int, moments: Moments) -> dict[int, torch.Tensor]:
    """(n, m) columns of each position, by group; empty unless all positions have as many columns in each group."""
    design = moments.design
    slots = [slot for slot in unit.with_role("in") if slot.tensor == name]
    if any(slot.dim != design.input_dim for slot in slots):
        return {}
    # a unit may be concatenated with itself
    indices = np.concatenate([slot.span.indices(np.arange(unit.width)) for slot in slots], axis=1)  # (n, m)
    if design.groups == 1 or not design.inputs_first:
        within = dict.fromkeys(range(design.groups), indices)
    else:  # a position that is a whole group has no columns in the other groups
        group, place = np.divmod(indices, inputs // design.groups)
        alike = all(len(set((group == g).sum(axis=1))) == 1 for g in range(design.groups))
        within = {g: place[group == g].reshape(unit.width, -1) for g in range(design.groups)} if alike else {}
    return {g: columns_of(own.ravel(), moments.block).reshape(unit.width, -1) for g, own in within.items() if own.size}
