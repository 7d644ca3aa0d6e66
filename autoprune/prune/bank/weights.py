"""The weight bank: weights with zeros in place of some entries, for every count of every weight unit.

Sparse weights are computed when they are first needed. Those made from dense weights are cached; those of weights that
lost rows or columns are not, because they hardly ever recur.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from autoprune.core.cache import ByteCache
from autoprune.core.sparse import SparseWeight
from autoprune.prune.bank.entries import removal_order, sweep
from autoprune.prune.bank.masks import MASKS, Scores, checked, groups_of, keep_largest, magnitude
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.moments import Moments, collect_moments
from autoprune.prune.moments.refit import columns_of
from autoprune.prune.moments.regression import refit_entries
from autoprune.prune.moments.ridge import ridged
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import Indices

MASK_CACHE_BYTES = 1 << 30
# largest g o k^3 for which an order is found round by round; for a dense weight, whose order is found once: 10 seconds
ORDER_WORK = 3e10
ONCE_WORK = 3e8  # the limit for one candidate, if other units changed the weight


@dataclass(frozen=True)
class _Task:
    """A (g, o, k) float64 weight of a network, and the `count` of entries that stay, in total or in each group.

    Without moments g is 1.
    """

    weight: torch.Tensor
    moments: Moments | None
    count: int
    groups: torch.Tensor | None
    dense: bool  # whether it is the weight of the dense model

    def keep(self, scores: torch.Tensor) -> torch.Tensor:
        return keep_largest(scores, self.count, self.groups)


@dataclass
class WeightBank:
    """Sparse weights of one model, by count.

    Attributes:
        dense: the dense weights, by name.
        weights: descriptions of the weights, by name.
        scores: the mask rule that chooses the entries that stay, which are not updated; None means optimal brain
            surgeon, which updates them.
        moments: second moments of the weights' inputs in the dense network, by name.
        plain: the reason for each weight without moments; magnitudes choose its entries, without updates.
    """

    dense: Mapping[str, torch.Tensor] = field(default_factory=dict)
    weights: Mapping[str, SparseWeight] = field(default_factory=dict)
    scores: Scores | None = None
    moments: Mapping[str, Moments] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)
    _orders: dict[str, torch.Tensor] = field(default_factory=dict)
    _made: ByteCache[tuple[str, int], torch.Tensor] = field(
        default_factory=lambda: ByteCache(MASK_CACHE_BYTES, least=1)
    )

    @property
    def remarks(self) -> dict[str, str]:
        """Facts that the reader of a result should know, by name of the weight."""
        return {name: f"keeps its largest entries as they are: {why}" for name, why in self.plain.items()}

    def touched(self, counts: Mapping[str, int]) -> list[str]:
        """Names of the weights that lose entries."""
        return [name for name, weight in self.weights.items() if counts.get(name, weight.whole) != weight.whole]

    @staticmethod
    def written(names: Iterable[str]) -> list[str]:
        """Returns the names of the tensors that `apply` may write to: these weights and their biases."""
        return [own for name in names for own in (name, f"{name.removesuffix('weight')}bias")]

    def apply(self, network: nn.Module, counts: Mapping[str, int], indices: Indices) -> None:
        """Sets entries of a network that was built for the counts to zero, in place.

        The entries that stay are chosen by the network's current weights. Weights of dense units, or of removed
        branches, are not changed.

        Args:
            network: the network.
            counts: kept counts by unit name.
            indices: the indices of the dense model's weights that the network keeps.
        """
        tensors = named_tensors(network)
        for name in self.touched(counts):
            if name not in tensors:
                continue
            task = self._task(self.weights[name], tensors[name].detach(), counts[name], indices.get(name, {}))
            sparse = self._sparse(name, task)
            with torch.no_grad():
                tensors[name].copy_(sparse.view(tensors[name].shape))
                bias = tensors.get(name.removesuffix("weight") + "bias")
                if bias is not None and self.scores is None and task.moments is not None:
                    bias.add_(((task.weight - sparse) * task.moments.mean[:, None]).sum(dim=2).flatten().to(bias))

    def _task(self, weight: SparseWeight, tensor: torch.Tensor, count: int, dims: Mapping[int, np.ndarray]) -> _Task:
        full, moments = self.dense[weight.unit], self.moments.get(weight.unit)
        dense = not dims and torch.equal(tensor, full)
        if moments is not None:
            moments = _taken(moments, dims, full.shape[0])
        matrices = tensor.cpu().double().flatten(1)
        matrices = matrices[None] if moments is None else moments.design.flat(matrices)
        inputs = tensor.shape[1]
        if weight.group:
            groups = groups_of(inputs, matrices.shape[2] // inputs, weight.group)
            return _Task(matrices, moments, count, groups, dense)
        return _Task(matrices, moments, int(weight.kept(count, tensor.numel(), inputs)), None, dense)

    def _sparse(self, name: str, task: _Task) -> torch.Tensor:
        """The (g, o, k) sparse weight, which is cached if it is made from a dense weight."""
        if not task.dense:
            return self._solved(name, task)
        key = (name, task.count)
        if key not in self._made:
            made = self._solved(name, task).to(self.dense[name].dtype)
            self._made.put(key, made, made.nbytes)
        return self._made[key].double()

    def _solved(self, name: str, task: _Task) -> torch.Tensor:
        if self.scores is not None:
            given = copy.deepcopy((task.weight, task.moments))  # a user's function may write to its arguments
            return task.weight * task.keep(checked(self.scores(*given), task.weight, name))
        if task.moments is None:
            return task.weight * task.keep(magnitude(task.weight, None))
        hessian = ridged(task.moments.gram.double(), task.moments.ridge)
        limit = ORDER_WORK if task.dense else ONCE_WORK
        groups, outputs, columns = task.weight.shape
        if groups * outputs * float(columns) ** 3 <= limit:
            return refit_entries(task.weight, hessian, task.keep(self._order(name, task, hessian)))
        swept = sweep(task.weight, hessian, task.count, task.groups)
        stays = swept != 0
        return refit_entries(task.weight, hessian, stays) if stays.sum(dim=2).double().pow(3).sum() <= limit else swept

    def _order(self, name: str, task: _Task, hessian: torch.Tensor) -> torch.Tensor:
        """(g, o, k) ranks of removal; those of dense weights are cached, with 4 bytes per entry."""
        if not task.dense:
            return removal_order(task.weight, hessian, task.groups)
        if name not in self._orders:
            self._orders[name] = removal_order(task.weight, hessian, task.groups)
        return self._orders[name]


def make_weight_bank(
    model: nn.Module,
    structure: Structure,
    weights: Mapping[str, SparseWeight],
    masks: str | Scores,
    batches: Iterable[tuple[torch.Tensor, ...]],
) -> WeightBank:
    """Makes a weight bank from one pass over the batches.

    Args:
        model: the dense network.
        structure: its structure.
        weights: the weights whose entries are searched, by name.
        masks: the mask rule: a name in MASKS, or a function (weight, moments) -> scores.
        batches: inputs of the model.
    """
    scores = masks if callable(masks) else MASKS[masks]
    dense = {name: model.get_parameter(name).detach() for name in weights}
    if scores is magnitude:
        return WeightBank(dense, weights, scores, {}, {})
    moments, plain = collect_moments(model, structure, list(weights), batches)
    wide = {
        name: f"{own.design.columns} columns are too many for statistics"
        for name, own in moments.items()
        if own.form == "channels"
    }
    usable = {name: own for name, own in moments.items() if name not in wide}
    return WeightBank(dense, weights, scores, usable, plain | wide)


def emptied_weights(network: nn.Module, dense: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the network's weights, of two or more dimensions, that are all zero but are not all zero in `dense`.

    Weights of removed branches are not included.
    """
    weights = [(name, p) for name, p in network.named_parameters() if p.dim() > 1 and name in dense]
    return [name for name, p in weights if not p.any() and dense[name].any()]


def _taken(moments: Moments, dims: Mapping[int, np.ndarray], outputs: int) -> Moments:
    """The moments of the inputs and groups that a weight keeps.

    The outputs of a group are adjacent, and all groups keep the same number.

    Args:
        moments: the moments of the dense weight's inputs.
        dims: the kept indices of each dimension of the weight.
        outputs: the number of outputs of the dense weight.
    """
    design = moments.design
    groups = np.arange(design.groups)
    if 0 in dims:
        groups = np.unique(dims[0] // (outputs // design.groups))
    columns = torch.arange(design.columns) if 1 not in dims else columns_of(dims[1], design.kernel)
    index = torch.from_numpy(groups)
    gram = moments.gram[index][:, columns][:, :, columns]
    small = replace(design, groups=len(groups), columns=len(columns))
    return replace(moments, design=small, stored=gram, mean=moments.mean[index][:, columns], constants={})
