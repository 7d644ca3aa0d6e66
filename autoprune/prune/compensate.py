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
fitted together in the end (prune.joint).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.prune.design import Design, design_of
from autoprune.prune.flow import Following, Layer, Mark
from autoprune.prune.joint import Affine, fit_jointly
from autoprune.prune.modes import evaluating
from autoprune.prune.regression import Regression
from autoprune.prune.structure import Structure
from autoprune.prune.surgery import Indices
from autoprune.prune.targets import Target, Targets, batch_moments, in_channels, linear_layers, tracked_norms

UNCHANGED = 1e-7  # of the target's variance: a layer that still does what the dense one does is left alone


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
    jointly: bool = True,
) -> Compensation:
    """Fits the layers of a pruned network, in place, in the order in which they run.

    Args:
        network: the small network, in the weights that are the prior (the bank's).
        targets: of the dense network it was made from.
        indices: which indices of the dense network's tensors it keeps.
        dense: the dense network's tensors, by name.
        jointly: whether two layers with nothing but a ReLU between them are fitted together in the end; takes half
            of the time.
    """
    layers, untouched = linear_layers(network, structure)
    layers = {name: layer for name, layer in layers.items() if name in targets.layers}
    pruned = _Pruned(layers, tracked_norms(network), targets, indices, dense)
    pruned.jointly = jointly
    pruned.result.untouched.update({**untouched, **targets.untouched})
    whole = [torch.cat(parts) for parts in zip(*targets.inputs, strict=True)]
    with evaluating(network), pruned.following():
        network(*whole)
    return pruned.result


@dataclass
class _Fit:
    """A layer that is being fitted to the target's channels that stay."""

    layer: Layer
    design: Design
    target: Target
    kept: torch.Tensor
    x: torch.Tensor
    regression: Regression
    shortcut: torch.Tensor | None = None  # what its output is added to

    def goal(self) -> torch.Tensor:
        """(g, n, o / g) what should come out of the regression's rows."""
        rows = self.target.rows[:, self.kept]
        if self.shortcut is not None:
            rows = rows - in_channels(self.design.outputs(self.shortcut, self.target.positions))
        return self.grouped(rows).transpose(0, 1)

    def grouped(self, outputs: torch.Tensor) -> torch.Tensor:
        """(..., g, o / g) of (..., o)."""
        return outputs.reshape(*outputs.shape[:-1], self.design.groups, -1)

    def whole_goal(self) -> torch.Tensor:
        """What should come out for the first images."""
        whole = self.target.whole.index_select(-len(self.design.axes) - 1, self.kept).float()
        return whole if self.shortcut is None else whole - self.shortcut[: len(whole)].float()

    def affine(self) -> Affine:
        weight, bias = _folded(self.layer, self.design)
        moments = self.regression.moments
        return Affine(self.layer.module, self.design, self.design.shaped(weight), bias.flatten(), moments)


class _Pruned(Following):
    """The pruned network's pass."""

    def __init__(
        self,
        layers: Mapping[str, Layer],
        norms: Mapping[str, _BatchNorm],
        targets: Targets,
        indices: Indices,
        dense: Mapping[str, torch.Tensor],
    ) -> None:
        super().__init__(layers, norms)
        self.targets, self.indices, self.dense = targets, indices, dense
        self.result = Compensation()
        self._open: dict[str, _Fit] = {}  # layers whose target is a sum that is not there yet
        self._feeding: dict[str, _Fit] = {}  # layers that another one will be fitted jointly with
        self._fitted_norms: set[int] = set()
        self.jointly = True

    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        fit = self._begin(layer, x)
        self._fitted_norms.add(id(layer.norm))
        if fit.target.summed:
            self._open[layer.name] = fit
        else:
            self._fit(fit)
        return fit.x

    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        fit = self._open.pop(layer, None)
        if fit is None:
            return y
        fit.shortcut = other
        return _run(fit.layer, fit.x) if self._fit(fit) else y

    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        """Nothing to do: it was fitted before."""

    def read(self, mark: Mark, function: str) -> None:
        """Nothing to do: who reads what is known from the dense network."""

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        """Re-estimates a batch norm that no fit has written, anchored (as measure.anchor does)."""
        norm = self.norms[name]
        if id(norm) in self._fitted_norms or name not in self.targets.norms:
            return
        kept = self.indices.get(f"{name}.running_mean", {}).get(0)
        index = torch.arange(norm.num_features) if kept is None else torch.from_numpy(kept)
        own_mean, own_variance = (
            self.dense[f"{name}.running_{what}"].cpu()[index].double() for what in ("mean", "var")
        )
        dense_mean, dense_variance = (values[index] for values in self.targets.norms[name])
        mean, variance = batch_moments(x)
        spread = ((variance + norm.eps) / (dense_variance + norm.eps)).sqrt()
        _write(norm.running_mean, mean + (own_mean - dense_mean) * spread)
        _write(norm.running_var, variance * (own_variance + norm.eps) / (dense_variance + norm.eps))

    def _begin(self, layer: Layer, x: torch.Tensor) -> _Fit:
        target = self.targets.layers[layer.name]
        design = cast(Design, design_of(layer.module))
        regression = self._regression(layer, design, target, x)
        kept = self.indices.get(f"{layer.name}.weight", {}).get(1 if design.inputs_first else 0)
        index = np.arange(target.rows.shape[1]) if kept is None else kept
        return _Fit(layer, design, target, torch.from_numpy(index).to(x.device), x, regression)

    def _regression(self, layer: Layer, design: Design, target: Target, x: torch.Tensor) -> Regression:
        prior, _ = _folded(layer, design)
        return Regression(design.rows(x, target.positions), prior, constant=_has_constant(layer))

    def _fit(self, fit: _Fit) -> bool:
        """Solves and writes a layer's weights, and its feeder's; False where nothing has changed."""
        name, goal = fit.layer.name, fit.goal()
        variance = float(goal.var(dim=1, correction=0).mean())
        left = _misfit(fit, goal)
        changed = not left <= UNCHANGED * variance  # also for NaN
        if changed:
            try:
                self._solve(fit, goal)
            except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch forgets to export it
                self.result.untouched[name] = f"its regression cannot be solved: {error}"
                return False
            self._solve_jointly(fit)
            left = _misfit(fit, fit.goal())
        self.result.unexplained[name] = left / variance if variance > 0 else 0.0
        if self.jointly and any(target.feeder == name for target in self.targets.layers.values()):
            self._feeding[name] = fit
            if changed:
                fit.regression.release()
        return changed

    def _solve(self, fit: _Fit, goal: torch.Tensor) -> None:
        solve = fit.regression.solve_rectified if fit.target.rectified else fit.regression.solve
        _put(fit, *solve(goal))

    def _solve_jointly(self, fit: _Fit) -> None:
        """Fits the layer together with the one that feeds it, then once more alone on all rows."""
        feeder = self._feeding.pop(fit.target.feeder or "", None)
        if feeder is None or not _has_constant(fit.layer) or not _has_constant(feeder.layer):
            return
        goal = fit.whole_goal()
        x = feeder.x[: len(goal)].float()
        first, second = fit_jointly(
            feeder.affine(),
            fit.affine(),
            x,
            goal,
            iterations=self.targets.effort.iterations,
            rectified=fit.target.rectified,
        )
        for part, affine in ((feeder, first), (fit, second)):
            _put(part, part.design.flat(affine.weight).double(), part.grouped(affine.bias.double()))
        fit.x = _run(feeder.layer, feeder.x).relu()
        fit.regression = self._regression(fit.layer, fit.design, fit.target, fit.x)
        self._solve(fit, fit.goal())


def _misfit(fit: _Fit, goal: torch.Tensor) -> float:
    weight, bias = _folded(fit.layer, fit.design)
    return float((fit.regression.fitted(weight.cpu().double(), bias.cpu().double()) - goal).square().mean())


def _has_constant(layer: Layer) -> bool:
    return layer.norm is not None or layer.module.bias is not None


def _run(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """A layer's output, through its batch norm; without hooks."""
    z = cast(torch.Tensor, layer.module.forward(x))
    norm = layer.norm
    if norm is None:
        return z
    return functional.batch_norm(z, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps)


def _folded(layer: Layer, design: Design) -> tuple[torch.Tensor, torch.Tensor]:
    """(g, o, k) weights and (g, o) constants of a layer and its batch norm together."""
    weight = design.flat(cast(torch.Tensor, layer.module.weight).detach().float())
    given = cast(torch.Tensor | None, layer.module.bias)
    bias = torch.zeros(weight.shape[:2]) if given is None else given.detach().float().reshape(weight.shape[:2])
    norm = layer.norm
    if norm is None:
        return weight, bias.to(weight)
    shape = weight.shape[:2]
    scale = (norm.weight.detach() / torch.sqrt(cast(torch.Tensor, norm.running_var) + norm.eps)).float().reshape(shape)
    mean, shift = (cast(torch.Tensor, x).detach().float().reshape(shape) for x in (norm.running_mean, norm.bias))
    return weight * scale[:, :, None], (bias.to(weight) - mean) * scale + shift


def _put(fit: _Fit, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Writes a solution. A batch norm gets the statistics of its new input, so re-estimating it changes nothing."""
    module, norm = fit.layer.module, fit.layer.norm
    _write(module.weight, fit.design.shaped(weight))
    if norm is None:
        if module.bias is not None:
            _write(module.bias, bias.flatten())
        return
    if module.bias is not None:
        _write(module.bias, torch.zeros(bias.numel()))
    mean, variance = fit.regression.spread(weight)
    _write(norm.running_mean, mean.flatten())
    _write(norm.running_var, variance.flatten())
    _write(norm.weight, torch.sqrt(variance + norm.eps).flatten())
    _write(norm.bias, (bias + mean).flatten())


def _write(tensor: torch.Tensor | nn.Module | None, values: torch.Tensor) -> None:
    cast(torch.Tensor, tensor).data.copy_(values)
