"""The weight bank: what a weight becomes when some of its entries are zero, for every count of every weight unit.

Worked out when first needed and kept, as far as they come from the dense weights: a weight whose rows or columns were
cut hardly comes again.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

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

CACHE_BYTES = 1 << 30
# how large g o k^3 may be for an order found round by round: for a dense weight, whose order is found once, ten seconds
ORDER_WORK = 3e10
ONCE_WORK = 3e8  # for one candidate, where other units changed the weight


@dataclass(frozen=True)
class _Task:
    """A weight as a network has it, (g, o, k) float64, and what stays of it: `count` entries, or of each group.

    g is 1 without moments.
    """

    weight: torch.Tensor
    moments: Moments | None
    count: int
    groups: torch.Tensor | None
    dense: bool  # whether it is the dense model's own weight

    def keep(self, scores: torch.Tensor) -> torch.Tensor:
        return keep_largest(scores, self.count, self.groups)


@dataclass
class WeightBank:
    """Sparse weights of one model, by count.

    `scores` say which entries stay, which are left as they are; None is optimal brain surgeon, which updates what
    stays. `moments` are those of the dense network; `plain` says which weights have none, and why: there magnitudes
    decide and nothing is updated.
    """

    dense: Mapping[str, torch.Tensor] = field(default_factory=dict)
    weights: Mapping[str, SparseWeight] = field(default_factory=dict)
    scores: Scores | None = None
    moments: Mapping[str, Moments] = field(default_factory=dict)
    plain: Mapping[str, str] = field(default_factory=dict)
    _orders: dict[str, torch.Tensor] = field(default_factory=dict)
    _made: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    @property
    def remarks(self) -> dict[str, str]:
        """What a reader of results should know, by name of the weight."""
        return {name: f"keeps its largest entries as they are: {why}" for name, why in self.plain.items()}

    def touched(self, counts: Mapping[str, int]) -> list[str]:
        """Names of the weights that lose entries."""
        return [name for name, weight in self.weights.items() if counts.get(name, weight.whole) != weight.whole]

    def apply(self, network: nn.Module, counts: Mapping[str, int], indices: Indices) -> None:
        """Puts zeros into a network that was built for the counts, in place.

        `indices` say which rows and columns of the dense model's weights the network has. The weights it has now
        decide what stays. A weight whose unit is dense, or that is gone with its branch, is left alone.
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
        """(g, o, k) the sparse weight; kept where it is one of the dense model's."""
        if not task.dense:
            return self._solved(name, task)
        key = (name, task.count)
        if key not in self._made:
            self._made[key] = self._solved(name, task).to(self.dense[name].dtype)
            while len(self._made) > 1 and sum(made.nbytes for made in self._made.values()) > CACHE_BYTES:
                self._made.pop(next(iter(self._made)))  # the oldest, never the one just made
        return self._made[key].double()

    def _solved(self, name: str, task: _Task) -> torch.Tensor:
        if self.scores is not None:
            given = copy.deepcopy((task.weight, task.moments))  # a user's function may write to what it gets
            return task.weight * task.keep(checked(self.scores(*given), task.weight, name))
        if task.moments is None:
            return task.weight * task.keep(magnitude(task.weight, None))
        hessian = ridged(task.moments.gram)
        limit = ORDER_WORK if task.dense else ONCE_WORK
        groups, outputs, columns = task.weight.shape
        if groups * outputs * float(columns) ** 3 <= limit:
            return refit_entries(task.weight, hessian, task.keep(self._order(name, task, hessian)))
        swept = sweep(task.weight, hessian, task.count, task.groups)
        stays = swept != 0
        return refit_entries(task.weight, hessian, stays) if stays.sum(dim=2).double().pow(3).sum() <= limit else swept

    def _order(self, name: str, task: _Task, hessian: torch.Tensor) -> torch.Tensor:
        """(g, o, k) ranks in which entries go; 4 bytes an entry are kept for the dense model's weights."""
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
    """A bank for the weights; `masks` is one of MASKS or a function of its own. One pass over the batches."""
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
    """Names of the network's weights, of two dimensions or more, that have no entry but zeros and have some in `dense`.

    A weight that is gone with its branch is not among them.
    """
    weights = [(name, p) for name, p in network.named_parameters() if p.dim() > 1 and name in dense]
    return [name for name, p in weights if not p.any() and dense[name].any()]


def _taken(moments: Moments, dims: Mapping[int, np.ndarray], outputs: int) -> Moments:
    """The moments of the inputs and groups that a weight with some indices of its dimensions has left.

    `outputs` is how many the dense weight has. Outputs of a group lie together, and all groups keep as many.
    """
    design = moments.design
    groups = np.arange(design.groups)
    if 0 in dims:
        groups = np.unique(dims[0] // (outputs // design.groups))
    columns = torch.arange(design.columns) if 1 not in dims else columns_of(dims[1], design.kernel)
    index = torch.from_numpy(groups)
    gram = moments.gram[index][:, columns][:, :, columns]
    small = replace(design, groups=len(groups), columns=len(columns))
    return replace(moments, design=small, gram=gram, mean=moments.mean[index][:, columns], constants={})
