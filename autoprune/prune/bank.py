"""The bank: which positions each unit keeps at any count, and what its consumers' weights become.

A candidate is stitched from it by indexing; least squares are solved once for every consumer and combination of its
input units' counts, and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from autoprune.core.unit import Slot, Unit
from autoprune.prune.copying import named_tensors
from autoprune.prune.criteria import (
    ConsumerStatistics,
    Criterion,
    UnitStatistics,
    UnitWeights,
    order_positions,
    ridged,
)
from autoprune.prune.statistics import Moments, collect_moments, consumers_of
from autoprune.prune.structure import Structure
from autoprune.prune.surgery import (
    Indices,
    Positions,
    kept_indices,
    laid_out_like,
    make_recipe,
    rebuild,
    select,
)

CACHE_BYTES = 1 << 30


@dataclass
class Bank:
    """Kept positions and compensated weights for every count of every searched unit of one model.

    `orders` has each unit's positions, the ones kept longest first, so that smaller counts keep subsets of larger
    ones. `sliced` says which consumers keep slices of their own weights, and why.
    """

    model: nn.Module
    structure: Structure
    orders: Mapping[str, np.ndarray]
    moments: Mapping[str, Moments]
    sliced: Mapping[str, str]
    _solved: dict[tuple[str, bytes], tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=dict)
    _tensors: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._tensors = named_tensors(self.model)

    def positions(self, counts: Mapping[str, int]) -> dict[str, np.ndarray]:
        """The sorted positions that stay for the given counts by unit name; units without positions are left out."""
        return {unit: np.sort(self.orders[unit][:count]) for unit, count in counts.items() if unit in self.orders}

    def indices(self, positions: Positions) -> Indices:
        """Which indices of the model's tensors stay, for every tensor that loses some."""
        return kept_indices(self.structure.units, positions, self._tensors)

    def tensors(self, positions: Positions) -> dict[str, torch.Tensor]:
        """Every tensor that changes, sliced, with consumers compensated."""
        indices = self.indices(positions)
        changed = {name: select(self._tensors[name], dims) for name, dims in indices.items()}
        return changed | self.compensated(indices)

    def compensated(self, indices: Indices) -> dict[str, torch.Tensor]:
        """The consumer weights, and biases where there are some, that least squares change."""
        changed: dict[str, torch.Tensor] = {}
        for name in self.moments:
            dims = indices.get(name, {})
            if 1 not in dims:
                continue
            weight, bias = self._solve(name, dims[1])
            rows = {0: dims[0]} if 0 in dims else {}
            changed[name] = laid_out_like(self._tensors[name], select(weight, rows))
            if bias is not None:
                bias_name = name.removesuffix("weight") + "bias"
                changed[bias_name] = laid_out_like(self._tensors[bias_name], select(bias, rows))
        return changed

    def build(self, counts: Mapping[str, int]) -> nn.Module:
        """The small network for the given counts; batch norms keep the dense network's statistics."""
        positions = self.positions(counts)
        recipe = make_recipe(self.structure, positions)
        return rebuild(self.model, self.tensors(positions), recipe.sizes, recipe.adapted, recipe.skipped)

    def _solve(self, name: str, kept: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        key = (name, kept.tobytes())
        if key not in self._solved:
            self._solved[key] = self._least_squares(name, kept)
            while len(self._solved) > 1 and sum(weight.nbytes for weight, _ in self._solved.values()) > CACHE_BYTES:
                self._solved.pop(next(iter(self._solved)))  # the oldest, never the one just solved
        return self._solved[key]

    def _least_squares(self, name: str, kept: np.ndarray) -> tuple[torch.Tensor, torch.Tensor | None]:
        """argmin over V of E|W x - V x_K|^2 + r |V - W_K|^2: the weights that best repeat the dense output."""
        full, moments = self._tensors[name], self.moments[name]
        weight = full.detach().cpu().double().flatten(1)  # (o, k)
        columns = torch.from_numpy(_columns(kept, weight.shape[1] // full.shape[1]))
        gram = ridged(moments.gram)
        factor = torch.linalg.cholesky(gram[columns][:, columns])
        target = weight @ gram[:, columns]  # W H_K + r W_K, as the ridge is on the diagonal
        solved = torch.cholesky_solve(target.T, factor).T  # (o, kept columns)
        small = solved.reshape(full.shape[0], len(kept), *full.shape[2:]).to(full.dtype)
        bias = self._tensors.get(name.removesuffix("weight") + "bias")
        if bias is None:
            return small, None
        shift = weight @ moments.mean - solved @ moments.mean[columns]
        return small, (bias.detach().cpu().double() + shift).to(bias.dtype)


def make_bank(
    model: nn.Module,
    structure: Structure,
    units: Sequence[str],
    criterion: Criterion,
    batches: Iterable[tuple[torch.Tensor, ...]],
) -> Bank:
    """A bank for the named units, from one pass over batches of unlabelled inputs."""
    chosen = [structure.unit(name) for name in units]
    moments, sliced = collect_moments(model, structure, consumers_of(chosen), batches)
    tensors = named_tensors(model)
    orders = {}
    for unit in chosen:
        statistics = UnitStatistics(
            tuple(_consumer(unit, name, tensors, moments) for name in consumers_of([unit]) if name in moments)
        )
        orders[unit.name] = order_unit(criterion, unit, tensors, statistics)
    return Bank(model, structure, orders, moments, sliced)


def order_unit(
    criterion: Criterion, unit: Unit, tensors: Mapping[str, torch.Tensor], statistics: UnitStatistics
) -> np.ndarray:
    """(n,) positions of a unit, the ones kept longest first; of a branch its only one."""
    if unit.is_branch:
        return np.arange(unit.width)
    return order_positions(criterion, unit_weights(unit, tensors), statistics, unit.name).numpy()


def unit_weights(unit: Unit, tensors: Mapping[str, torch.Tensor]) -> UnitWeights:
    """What produces and what consumes each position of a unit."""

    def rows(slot: Slot) -> torch.Tensor:
        indices = torch.from_numpy(slot.span.indices(np.arange(unit.width)))  # (n, m)
        tensor = tensors[slot.tensor].detach().float().cpu().movedim(slot.dim, 0)
        return tensor[indices].flatten(1)

    return UnitWeights(
        tuple(rows(slot) for slot in unit.with_role("out")), tuple(rows(slot) for slot in unit.with_role("in"))
    )


def _consumer(
    unit: Unit, name: str, tensors: Mapping[str, torch.Tensor], moments: Mapping[str, Moments]
) -> ConsumerStatistics:
    full = tensors[name]
    weight = full.detach().cpu().double().flatten(1)
    places = [slot.span.indices(np.arange(unit.width)) for slot in unit.with_role("in") if slot.tensor == name]
    inputs = np.concatenate(places, axis=1)  # (n, m): a unit may be concatenated with itself
    block = weight.shape[1] // full.shape[1]
    columns = (inputs[:, :, None] * block + np.arange(block)).reshape(unit.width, -1)
    return ConsumerStatistics(weight, moments[name].gram, torch.from_numpy(columns))


def _columns(kept: np.ndarray, block: int) -> np.ndarray:
    """Columns of a flattened (o, inputs, kernel...) weight that belong to the kept inputs."""
    return (np.asarray(kept)[:, None] * block + np.arange(block)).ravel()
