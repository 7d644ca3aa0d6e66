"""The bank: the positions that each unit keeps at any count, and the compensated weights of its consumers.

Networks are assembled from it by indexing. Least squares are solved when they are first needed, once for every consumer
and combination of its input units' counts, and cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from autoprune.core.cache import ByteCache
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.bank.weights import WeightBank
from autoprune.prune.criteria import Criterion
from autoprune.prune.criteria.ordering import order_units
from autoprune.prune.devices.precision import doubled
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import consumers_of, measured_weights
from autoprune.prune.moments.moments import Moments, collect_moments
from autoprune.prune.moments.refit import kept_by_group, refit
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import laid_out_like, rebuild, select

SOLUTION_CACHE_BYTES = 1 << 30

Solutions = ByteCache[tuple[str, bytes], dict[str, torch.Tensor]]


def _empty_cache() -> Solutions:
    return ByteCache(SOLUTION_CACHE_BYTES, least=1)  # the solution that was just found stays


@dataclass
class Bank:
    """Kept positions and compensated weights for every count of every searched unit of one model.

    Attributes:
        model: the dense network.
        structure: its structure.
        orders: positions of each unit, those that stay longest first, so that smaller counts keep subsets of larger
            ones.
        moments: second moments of consumers' inputs, by name of the weight.
        sliced: the reason for each consumer whose weights are sliced without compensation.
        notes: further facts that the reader of a result should know, by name of a unit or weight.
        weights: the weights whose entries are searched; none by default.
    """

    model: nn.Module
    structure: Structure
    orders: Mapping[str, np.ndarray]
    moments: Mapping[str, Moments]
    sliced: Mapping[str, str]
    notes: dict[str, str] = field(default_factory=dict)
    weights: WeightBank = field(default_factory=WeightBank)
    _solved: Solutions = field(default_factory=_empty_cache)
    _tensors: dict[str, torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self._tensors = named_tensors(self.model)

    @property
    def remarks(self) -> dict[str, str]:
        """Facts that the reader of a result should know, by name of a unit or weight, from `sliced` and `notes`."""
        return {name: f"keeps slices of its weights: {why}" for name, why in self.sliced.items()} | self.notes

    def with_orders(self, orders: Mapping[str, np.ndarray]) -> Bank:
        """Returns the bank with other orders of the positions of some units."""
        return replace(self, orders={**self.orders, **orders}, notes={}, _solved=_empty_cache())

    def with_weights(self, weights: WeightBank) -> Bank:
        """Returns the bank with weights whose entries are searched."""
        return replace(self, weights=weights)

    def subnet(self, counts: Mapping[str, int]) -> Subnet:
        """The part of the model that stays at the given counts of units, by name; other units stay whole."""
        sparse = tuple(self.weights.touched(counts))
        return Subnet(counts, sparse, self.orders, self.structure, self._tensors)

    def tensors(self, subnet: Subnet) -> dict[str, torch.Tensor]:
        """Every tensor that changes, by name: sliced, and compensated if it is a consumer's."""
        changed = self.compensated(subnet)
        return {n: select(self._tensors[n], dims) for n, dims in subnet.indices.items() if n not in changed} | changed

    def compensated(self, subnet: Subnet) -> dict[str, torch.Tensor]:
        """The weights and biases of consumers that least squares change, by name."""
        indices = subnet.indices
        changed: dict[str, torch.Tensor] = {}
        for name, moments in self.moments.items():
            dims, inputs = indices.get(name, {}), moments.design.input_dim
            if inputs in dims:
                for tensor, values in self._solve(name, dims[inputs]).items():
                    rest = {
                        dim: kept for dim, kept in indices.get(tensor, {}).items() if (tensor, dim) != (name, inputs)
                    }
                    changed[tensor] = laid_out_like(self._tensors[tensor], select(values, rest))
        return changed

    def build(self, subnet: Subnet, *, share: bool = False) -> nn.Module:
        """Builds the small network, with the zeros of its sparse weights.

        Its batch norms keep the dense network's statistics. With `share`, for a network whose parameters are only read,
        it shares the parameters that do not change with the model.
        """
        recipe, tensors = subnet.recipe, self.tensors(subnet)
        if share:
            written = [name for name in self.weights.written(subnet.sparse) if name in self._tensors]
            tensors |= {name: tensors.get(name, self._tensors[name]).detach().clone() for name in written}
        network = rebuild(self.model, tensors, recipe.sizes, recipe.adapted, recipe.skipped, share=share)
        if subnet.sparse:
            self.weights.apply(network, subnet.counts, subnet.indices)
        return network

    def _solve(self, name: str, kept: np.ndarray) -> dict[str, torch.Tensor]:
        key = (name, kept.tobytes())
        if key not in self._solved:
            solved = self._refitted(name, kept)
            self._solved.put(key, solved, sum(tensor.nbytes for tensor in solved.values()))
        return self._solved[key]

    def _refitted(self, name: str, kept: np.ndarray) -> dict[str, torch.Tensor]:
        """The weight for the kept inputs and all outputs, and the biases that it shifts, by name.

        The result is empty if slices are as good, because only whole groups were removed, or if it is not finite.
        """
        full, moments = self._tensors[name], self.moments[name]
        groups = kept_by_group(moments.design, kept, full.shape[moments.design.input_dim])
        if all(len(own) * moments.design.kernel == moments.design.columns for own in groups.values()):
            return {}
        weight, shifts = refit(full, moments, kept)
        solved = {name: weight.to(full.dtype)}
        for bias, shift in shifts.items():
            own = self._tensors[bias]
            solved[bias] = (doubled(own.detach()) + shift).to(own.dtype)
        if torch.stack([torch.isfinite(values).all() for values in solved.values()]).all():
            return {tensor: values.to(full.device) for tensor, values in solved.items()}
        self.notes[name] = f"keeps slices of its weights where least squares exceed the range of {full.dtype}"
        return {}


def make_bank(
    model: nn.Module,
    structure: Structure,
    units: Sequence[str],
    criterion: Criterion,
    batches: Sequence[tuple[torch.Tensor, ...]],
) -> Bank:
    """Makes a bank from batches of unlabelled inputs.

    One pass over the batches collects the moments; a criterion that needs statistics of the loss takes further passes.

    Args:
        model: the dense network.
        structure: its structure.
        units: names of the units that are searched.
        criterion: orders the positions of each unit.
        batches: inputs of the model.

    Returns:
        The bank; `Bank.notes` has remarks on unusual orders and statistics.
    """
    chosen = [structure.unit(name) for name in units]
    moments, reasons = collect_moments(model, structure, measured_weights(chosen), batches)
    sliced = {name: reasons[name] for name in consumers_of(chosen) if name in reasons}
    orders, notes = order_units(model, structure, chosen, criterion, moments, batches)
    return Bank(model, structure, orders, moments, sliced, notes | notes_on(moments, named_tensors(model)))


def notes_on(moments: Mapping[str, Moments], tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Remarks on unusual statistics, by name of the weight."""
    notes = {}
    for name, own in moments.items():
        findings = []
        if own.form == "channels":
            findings.append(f"{own.design.columns} columns are too many: one mixing of channels for all of its kernel")
        if own.blocks > 1:
            findings.append(f"its inputs are too many: they compensate within {own.blocks} blocks")
        if own.seen > own.rows:
            findings.append(f"its second moments are those of one row in {round(own.seen / own.rows)}")
        if own.rows < own.design.columns:
            findings.append(f"{own.rows} rows for {own.design.columns} columns: the ridge decides what they leave open")
        if still := int((own.squares <= 0).sum()):
            findings.append(f"{still} of its {own.form} never {'vary' if own.centred else 'differ from zero'}")
        if not bool(tensors[name].any()):
            findings.append("it is all zero")
        if findings:
            notes[name] = "; ".join(findings)
    return notes
