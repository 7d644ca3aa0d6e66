"""Sequential compensation: one pass through a pruned network that fits every layer to the dense network's outputs.

The pruned network runs once, on all images together. Before a layer runs, its weights are solved for: an affine ridge
regression from what the layer sees *in the pruned network*, errors of earlier layers included, to what the dense
network puts out at the channels that stay; after its batch norm where it has one, which takes up the constant. A layer
whose output is added to a shortcut is fitted to the dense network's sum less the pruned network's shortcut, so that it
also repairs what the shortcut carries. Batch norms that belong to no fitted layer are re-estimated, anchored to the
dense network's own statistics. The classifier is a layer like any other: its target are the dense logits. No labels
and no gradients.

Least-squares repair of layers one after the other is He, Zhang, Sun 2017 (https://arxiv.org/abs/1707.06168, section
3.2) and, with the pruned network's own inputs, Zhang, Zou, He, Sun 2015 (https://arxiv.org/abs/1505.06798, section
3.3). Ours: the target is the residual sum, producers are refitted too and know that a ReLU follows, the prior of the
ridge is the weight that the bank has already compensated, and two layers with nothing but a ReLU between them are
fitted together in the end (prune.joint). In a weight with zeros each output is solved for on the columns it has left.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.prune.compensation.fit import Fit, has_constant
from autoprune.prune.compensation.flow import Following, Layer, Mark
from autoprune.prune.compensation.targets import Targets, batch_statistics, linear_layers
from autoprune.prune.modules.batch_norms import NormStatistics, kept_channels, tracked_norms
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.moments.design import Design, design_of
from autoprune.prune.moments.regression import factor_bytes
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import Indices

FACTOR_BYTES = 2 << 30  # of the factors of one weight with zeros, which has one an output


@dataclass
class Compensation:
    """What a pass did: layers that were fitted, with the share of their target's variance that is left unexplained
    (0 = the dense network's output), and why others were not.
    """

    unexplained: dict[str, float] = field(default_factory=dict)
    untouched: dict[str, str] = field(default_factory=dict)


def compensate(
    network: nn.Module,
    structure: Structure,
    targets: Targets,
    indices: Indices,
    dense: Mapping[str, torch.Tensor],
    *,
    sparse: Collection[str] = (),
    jointly: bool = True,
) -> Compensation:
    """Fits the layers of a pruned network, in place, in the order in which they run.

    Args:
        network: the small network, in the weights that are the prior (the bank's).
        targets: of the dense network it was made from.
        indices: which indices of the dense network's tensors it keeps.
        dense: the dense network's tensors, by name.
        sparse: the network's weights whose zeros stay, by name.
        jointly: whether two layers with nothing but a ReLU between them are fitted together in the end; takes half
            of the time.
    """
    layers, untouched = linear_layers(network, structure)
    stays = {name: _stays(layer) for name, layer in layers.items() if f"{name}.weight" in sparse}
    sizes = {name: factor_bytes(entries) for name, entries in stays.items()}
    large = {
        name: f"factors for each of its outputs would take {size / 2**30:.1f} GiB, the limit is {FACTOR_BYTES >> 30}"
        for name, size in sizes.items()
        if size > FACTOR_BYTES
    }
    layers = {name: layer for name, layer in layers.items() if name in targets.layers and name not in large}
    feeders = _feeders(layers, targets) if jointly else {}
    pruned = _Pruned(layers, tracked_norms(network), targets, feeders, indices, dense, stays)
    pruned.result.untouched.update({**untouched, **targets.untouched, **large})
    whole = [torch.cat(parts) for parts in zip(*targets.inputs, strict=True)]
    with evaluating(network), pruned.following():
        network(*whole)
    assert not pruned.waiting, "whatever is postponed in a pass is read in it, as in the dense network's"
    return pruned.result


def _stays(layer: Layer) -> torch.Tensor:
    """(g, o, k) which entries of a layer's weight are not 0."""
    return cast(Design, design_of(layer.module)).flat(cast(torch.Tensor, layer.module.weight)).detach().cpu() != 0


def _feeders(layers: Mapping[str, Layer], targets: Targets) -> dict[str, str]:
    """The layer that each one is fitted jointly with; none where others read the output before the addition."""
    able = {name for name, layer in layers.items() if has_constant(layer)}
    found = {name: target.feeder for name, target in targets.layers.items() if target.read_once or not target.summed}
    return {name: feeder for name, feeder in found.items() if feeder in able and name in able}


class _Pruned(Following):
    """The pruned network's pass.

    A layer runs when its weights are final: one that feeds another at that one's place, and one whose output is read
    by an addition alone at the addition. `waiting` are those that have not.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        norms: Mapping[str, _BatchNorm],
        targets: Targets,
        feeders: Mapping[str, str],
        indices: Indices,
        dense: Mapping[str, torch.Tensor],
        stays: Mapping[str, torch.Tensor],
    ) -> None:
        sums = {name for name in layers if targets.layers[name].summed and targets.layers[name].read_once}
        super().__init__(layers, norms, sums.union(feeders.values()))
        self.targets, self.feeders, self.indices, self.dense, self.stays = targets, feeders, indices, dense, stays
        self.result = Compensation()
        self.waiting: dict[str, Fit] = {}
        self._fitted_norms: set[int] = set()

    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        fit = self._begin(layer, x)
        self._fitted_norms.add(id(layer.norm))
        if fit.target.summed:
            self.waiting[layer.name] = fit
            return x
        self._solve(fit)
        if layer.name in self.feeders.values():
            self.waiting[layer.name] = fit
        return fit.x

    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        fit = self.waiting.pop(layer, None)
        if fit is None:
            return y
        fit.shortcut = other
        self._solve(fit)
        return fit(fit.x)

    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        """Nothing to do: it was fitted before."""

    def read(self, mark: Mark, function: str) -> None:
        """Nothing to do: who reads what is known from the dense network."""

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        """Re-estimates a batch norm that no fit has written, anchored to the dense network's own statistics."""
        norm = self.norms[name]
        if id(norm) in self._fitted_norms or name not in self.targets.norms:
            return
        kept = kept_channels(self.indices, name)
        mean, variance = (self.dense[f"{name}.running_{what}"].cpu().double() for what in ("mean", "var"))
        own, estimated = NormStatistics(mean, variance).take(kept), self.targets.norms[name].take(kept)
        batch_statistics(x).anchored(own, estimated, norm.eps).write(norm)

    def _begin(self, layer: Layer, x: torch.Tensor) -> Fit:
        target = self.targets.layers[layer.name]
        design = cast(Design, design_of(layer.module))
        kept = self.indices.get(f"{layer.name}.weight", {}).get(1 if design.inputs_first else 0)
        index = np.arange(target.rows.shape[1]) if kept is None else kept
        feeder = self.waiting.pop(self.feeders[layer.name]) if layer.name in self.feeders else None
        kept_here = torch.from_numpy(index).to(x.device)
        return Fit(layer, design, target, kept_here, x, feeder, self.stays.get(layer.name))

    def _solve(self, fit: Fit) -> None:
        """Solves for a layer's weights and writes them, and its feeder's."""
        name = fit.layer.name
        try:
            if fit.feeder is None:
                fit.solve()
            else:
                fit.solve_with_feeder(fit.feeder, self.targets.effort.iterations)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch forgets to export it
            self.result.untouched[name] = f"its regression cannot be solved: {error}"
        else:
            self.result.unexplained[name] = fit.unexplained
