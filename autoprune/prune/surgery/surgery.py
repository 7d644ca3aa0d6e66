"""Builds the smaller network: a copy of the model with sliced tensors and updated sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from autoprune.core.unit import Unit
from autoprune.errors import SpaceError
from autoprune.prune.modules import adapters  # noqa: F401  # register
from autoprune.prune.modules.adapting import adapt, apply_fixes
from autoprune.prune.modules.attributes import put
from autoprune.prune.modules.borrowed import modes_put_back
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.modules.skip import skip
from autoprune.prune.passes.unwritten import unwritten
from autoprune.prune.structure.structure import Structure

Positions = Mapping[str, np.ndarray]  # unit name -> sorted kept positions; other units stay whole
Indices = dict[str, dict[int, np.ndarray]]  # tensor name -> dimension -> kept indices


def kept_indices(units: Iterable[Unit], positions: Positions, tensors: Mapping[str, torch.Tensor]) -> Indices:
    """The kept indices along each dimension that loses some, for every tensor that loses any.

    An index stays if none of the units across it removes it. Tensors of a branch are removed with its modules.
    """
    masks: dict[str, dict[int, np.ndarray]] = {}
    known = {unit.name: unit for unit in units}
    for name, kept in positions.items():
        if name not in known:
            raise SpaceError(f"no unit is called {name!r}; units are {list(known)}")
        unit = known[name]
        check_positions(unit, kept)
        if len(kept) == unit.width or unit.is_branch:
            continue
        gone = np.ones(unit.width, bool)
        gone[kept] = False
        removed = np.flatnonzero(gone)
        for slot in unit.slots:
            length = tensors[slot.tensor].shape[slot.dim]
            mask = masks.setdefault(slot.tensor, {}).setdefault(slot.dim, np.ones(length, bool))
            mask[slot.span.indices(removed)] = False
    return {name: {dim: np.flatnonzero(mask) for dim, mask in dims.items()} for name, dims in masks.items()}


def check_positions(unit: Unit, kept: np.ndarray) -> None:
    """Raises SpaceError unless the positions are strictly increasing, enough, and within the unit."""
    indices = np.asarray(kept)
    whole = indices.ndim == 1 and (np.issubdtype(indices.dtype, np.integer) or not indices.size)
    inside = whole and ((indices >= 0) & (indices < unit.width)).all() and (np.diff(indices) > 0).all()
    if not inside or indices.size < unit.least:
        raise SpaceError(
            f"unit {unit.name!r} has positions 0 to {unit.width - 1}: expected at least {unit.least} to stay, each "
            f"named once in rising order, got {indices.tolist()}"
        )


def select(tensor: torch.Tensor, dims: Mapping[int, np.ndarray]) -> torch.Tensor:
    """The tensor with only the given indices of the given dimensions; its memory format is kept."""
    result = tensor.detach()
    for dim, indices in dims.items():
        result = result.index_select(dim, torch.from_numpy(indices).to(tensor.device))
    return laid_out_like(tensor, result)


def laid_out_like(pattern: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with the dtype, device and memory format of another one."""
    tensor = tensor.to(pattern)
    if pattern.dim() == 4 and not pattern.is_contiguous() and pattern.is_contiguous(memory_format=torch.channels_last):
        return tensor.contiguous(memory_format=torch.channels_last)
    return tensor


def slice_tensors(model: nn.Module, structure: Structure, positions: Positions) -> dict[str, torch.Tensor]:
    """The sliced tensors, by name; tensors that stay whole are left out."""
    tensors = named_tensors(model)
    indices = kept_indices(structure.units, positions, tensors)
    return {name: select(tensors[name], dims) for name, dims in indices.items()}


@dataclass(frozen=True)
class Recipe:
    """The instructions for building a network: kept positions by unit, and the changes of its modules.

    `adapted` modules get their adapter's class. `skipped` modules are removed with their branch; each has the length of
    the tuple it returned, 0 for a bare tensor.
    """

    positions: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, Mapping[str, int]]  # module -> attribute -> value
    adapted: tuple[str, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)


def make_recipe(structure: Structure, positions: Positions) -> Recipe:
    """The recipe for keeping the given positions."""
    counts = {unit.name: len(positions.get(unit.name, range(unit.width))) for unit in structure.units}
    sizes: dict[str, dict[str, int]] = {}
    for size in structure.sizes:
        value = int(size.value.substitute(counts).terms.get((), 0))
        sizes.setdefault(size.module, {})[size.attribute] = value
    kept = {name: tuple(np.asarray(indices).tolist()) for name, indices in positions.items()}
    gone = [branch for name, branch in structure.branches.items() if not counts[name]]
    return Recipe(kept, sizes, structure.adapted, {m: n for branch in gone for m, n in branch.modules.items()})


def rebuild(
    model: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    sizes: Mapping[str, Mapping[str, int]],
    adapted: Iterable[str] = (),
    skipped: Mapping[str, int] | None = None,
    *,
    share: bool = False,
    connected: bool = False,
) -> nn.Module:
    """A copy of the model (see copy_model) with replaced tensors, adapted and skipped modules, and new attributes.

    If an adapter or a fix writes to a parameter, the copy has its own, also with `share`.
    """
    small = copy_model(model, tensors, share=share, connected=connected)
    if share:
        with unwritten(small) as guard:
            _finish(small, sizes, adapted, skipped or {}, sliced=bool(tensors))
        if not guard.written:
            return small
        small = copy_model(model, tensors, connected=connected)
    _finish(small, sizes, adapted, skipped or {}, sliced=bool(tensors))
    return small


def _finish(
    small: nn.Module,
    sizes: Mapping[str, Mapping[str, int]],
    adapted: Iterable[str],
    skipped: Mapping[str, int],
    *,
    sliced: bool,
) -> None:
    """Makes the modules of a copy fit its tensors."""
    adapt(small, adapted)
    for module, attributes in sizes.items():
        for attribute, number in attributes.items():
            put(small.get_submodule(module), attribute, number)
    skip(small, skipped)
    if sliced:
        with modes_put_back(small):
            small.train(small.training)  # some classes cache values computed from weights until their mode is set
        apply_fixes(small)


def cut(model: nn.Module, structure: Structure, positions: Positions, *, share: bool = False) -> nn.Module:
    """Surgery alone: the network with only the given positions and unchanged weights. The model is not touched."""
    recipe = make_recipe(structure, positions)
    tensors = slice_tensors(model, structure, positions)
    return rebuild(model, tensors, recipe.sizes, recipe.adapted, recipe.skipped, share=share, connected=not share)
