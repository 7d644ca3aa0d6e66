"""Sequential compensation: one pass through a pruned network that fits every layer to the dense network's outputs.

The pruned network runs once, on all examples together. Before a layer runs, its weights are solved for: an affine ridge
regression from the layer's input *in the pruned network*, errors of earlier layers included, to the dense network's
output at the kept channels. The output is taken after the layer's batch norm, if it has one, which absorbs the
constant. A layer whose output is added to a shortcut is fitted to the dense network's sum minus the pruned network's
shortcut, so that it also corrects errors of the shortcut. Batch norms that belong to no fitted layer are re-estimated,
anchored to the dense network's own statistics. The classifier is treated like any other layer, with the dense logits as
its target. The pass needs neither labels nor gradients. In a weight with zeros, each output is solved for on its
remaining columns.

Source:
    He, Zhang, Sun 2017 (https://arxiv.org/abs/1707.06168, section 3.2) for least-squares reconstruction layer by layer;
    Zhang, Zou, He, Sun 2015 (https://arxiv.org/abs/1505.06798, section 3.3) with the pruned network's own inputs.
    Departures: the target is the residual sum; producers are refitted, too, and take a following ReLU into account; the
    prior of the ridge is the weight that the bank has already compensated; two layers with only a ReLU between them are
    finally fitted together (compensation.joint).
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
from autoprune.prune.compensation.flow import Following, Layer, OutputMark
from autoprune.prune.compensation.targets import Targets, batch_statistics, linear_layers
from autoprune.prune.modules.batch_norms import NormStatistics, kept_channels, tracked_norms
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.moments.design import Design, design_of
from autoprune.prune.moments.regression import factor_bytes
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import Indices

FACTOR_BYTES = 2 << 30  # limit on the factors of one weight with zeros, which has a factor for each output


@dataclass
class Compensation:
    """The result of a compensation.

    Attributes:
        unexplained: for each fitted layer, the share of its target's variance that is left unexplained; 0 if the output
            equals the dense network's.
        untouched: the reason for each layer that was not fitted.
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
        network: the small network, whose weights (the bank's) are the prior.
        structure: the dense network's structure.
        targets: the targets, from the dense network.
        indices: the indices of the dense network's tensors that the small network keeps.
        dense: the dense network's tensors, by name.
        sparse: names of the network's weights whose zeros stay.
        jointly: whether two layers with only a ReLU between them are finally fitted together, which takes half of the
            time.

    Returns:
        The fitted and the untouched layers.
    """
    layers, untouched = linear_layers(network, structure)
    stays = {name: _stays(layer) for name, layer in layers.items() if f"{name}.weight" in sparse}
    sizes = {name: factor_bytes(entries) for name, entries in stays.items()}
    large = {
        name: f"factors for each of its outputs would take {size / 2**30:.1f} GiB; the limit is {FACTOR_BYTES >> 30}"
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
    assert not pruned.waiting, "every postponed output must be read in the same pass, as in the dense network"
    return pruned.result


def _stays(layer: Layer) -> torch.Tensor:
    """(g, o, k) booleans, True for the entries of a layer's weight that are not 0."""
    return cast(Design, design_of(layer.module)).flat(cast(torch.Tensor, layer.module.weight)).detach().cpu() != 0


def _feeders(layers: Mapping[str, Layer], targets: Targets) -> dict[str, str]:
    """The feeder of each layer that is fitted jointly; a layer whose output is read before an addition has none."""
    able = {name for name, layer in layers.items() if has_constant(layer)}
    found = {name: target.feeder for name, target in targets.layers.items() if target.read_once or not target.summed}
    return {name: feeder for name, feeder in found.items() if feeder in able and name in able}


class _Pruned(Following):
    """The pass through the pruned network.

    A layer runs when its weights are final: a feeder runs when the layer that it feeds runs, and a layer whose output
    only an addition reads runs at the addition. `waiting` holds the fits of the layers that have not run yet.
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
        """Does nothing, because the layer is already fitted."""

    def read(self, mark: OutputMark, function: str) -> None:
        """Does nothing, because the readers are known from the dense network."""

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        """Re-estimates a batch norm that no fit has changed, anchored to the dense network's own statistics."""
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
        """Solves for the weights of a layer and of its feeder, if it has one, and writes them."""
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
