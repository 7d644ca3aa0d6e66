"""The weight bank: what a weight becomes when some of its entries are zero, for every count of every weight unit.

Worked out when first needed and kept, as far as they come from the dense weights: a weight whose rows or columns were
cut hardly comes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from autoprune.core.sparse import SparseWeight
from autoprune.prune.copying import named_tensors
from autoprune.prune.criteria import ridged
from autoprune.prune.masking import MASKS, Scores, checked, groups_of, keep_largest, magnitude, refit
from autoprune.prune.statistics import Moments, collect_moments
from autoprune.prune.structure import Structure
from autoprune.prune.surgeon import removal_order, sweep
from autoprune.prune.surgery import Indices

CACHE_BYTES = 1 << 30
# how large o k^3 may be for an order found round by round: for a dense weight, whose order is found once, ten seconds
ORDER_WORK = 3e10
ONCE_WORK = 3e8  # for one candidate, where other units changed the weight


@dataclass(frozen=True)
class _Task:
    """A weight as a network has it, (o, k) float64, and what stays of it: `count` entries, or of each group."""

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

    dense: Mapping[str, torch.Tensor]
    weights: Mapping[str, SparseWeight]
    scores: Scores | None
    moments: Mapping[str, Moments]
    plain: Mapping[str, str]
    _orders: dict[str, torch.Tensor] = field(default_factory=dict)
    _made: dict[tuple[str, int], torch.Tensor] = field(default_factory=dict)

    def apply(self, network: nn.Module, counts: Mapping[str, int], indices: Indices) -> None:
        """Puts zeros into a network that was built for the counts, in place.

        `indices` say which rows and columns of the dense model's weights the network has. The weights it has now
        decide what stays. A weight whose unit is dense, or that is gone with its branch, is left alone.
        """
        tensors = named_tensors(network)
        for name, weight in self.weights.items():
            if name not in tensors or counts.get(name, weight.whole) == weight.whole:
                continue
            task = self._task(weight, tensors[name].detach(), counts[name], indices.get(name, {}))
            sparse = self._sparse(name, task)
            with torch.no_grad():
                tensors[name].copy_(sparse.view(tensors[name].shape))
                bias = tensors.get(name.removesuffix("weight") + "bias")
                if bias is not None and self.scores is None and task.moments is not None:
                    bias.add_(((task.weight - sparse) @ task.moments.mean).to(bias))

    def _task(self, weight: SparseWeight, tensor: torch.Tensor, count: int, dims: Mapping[int, np.ndarray]) -> _Task:
        matrix, inputs = tensor.cpu().double().flatten(1), tensor.shape[1]
        kernel = matrix.shape[1] // inputs
        dense = not dims and torch.equal(tensor, self.dense[weight.unit])
        moments = self.moments.get(weight.unit)
        if moments is not None and 1 in dims:
            moments = _taken(moments, torch.from_numpy(dims[1]), kernel)
        if weight.group:
            return _Task(matrix, moments, count, groups_of(inputs, kernel, weight.group), dense)
        return _Task(matrix, moments, int(weight.kept(count, matrix.numel(), inputs)), None, dense)

    def _sparse(self, name: str, task: _Task) -> torch.Tensor:
        """(o, k) the sparse weight; kept where it is one of the dense model's."""
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
            return task.weight * task.keep(checked(self.scores(task.weight, task.moments), task.weight, name))
        if task.moments is None:
            return task.weight * task.keep(magnitude(task.weight, None))
        hessian = ridged(task.moments.gram)
        limit = ORDER_WORK if task.dense else ONCE_WORK
        if float(len(task.weight)) * float(len(hessian)) ** 3 <= limit:
            return refit(task.weight, hessian, task.keep(self._order(name, task, hessian)))
        swept = sweep(task.weight, hessian, task.count, task.groups)
        stays = swept != 0
        return refit(task.weight, hessian, stays) if stays.sum(dim=1).double().pow(3).sum() <= limit else swept

    def _order(self, name: str, task: _Task, hessian: torch.Tensor) -> torch.Tensor:
        """(o, k) ranks in which entries go; 4 bytes an entry are kept for the dense model's weights."""
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
    return WeightBank(dense, weights, scores, *collect_moments(model, structure, list(weights), batches))


def _taken(moments: Moments, inputs: torch.Tensor, kernel: int) -> Moments:
    """The moments of some inputs, each `kernel` columns."""
    columns = torch.arange(len(moments.mean)).view(-1, kernel)[inputs].flatten()
    return Moments(moments.gram[columns][:, columns], moments.mean[columns], moments.centred)
