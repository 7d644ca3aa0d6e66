"""Fits one layer of a pruned network to its target, alone or together with its feeder, and writes its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from autoprune.prune.compensation.flow import Layer
from autoprune.prune.compensation.joint import Affine, fit_jointly
from autoprune.prune.compensation.targets import Target, in_channels
from autoprune.prune.moments.design import Design
from autoprune.prune.moments.regression import Regression

UNCHANGED = 1e-7  # share of the target's variance below which a layer is left unchanged


@dataclass
class Fit:
    """A layer that is being fitted to its target's `kept` channels.

    Attributes:
        layer: the layer.
        design: its design.
        target: the dense network's outputs.
        kept: the kept channels of the target.
        x: the layer's input for all examples. With a `feeder` it is unknown before `solve_with_feeder`.
        feeder: the fit of the layer whose rectified output is the input, if the two are fitted jointly.
        stays: (g, o, k) booleans, True for the entries that may change; None for all entries.
        shortcut: the tensor that the output is added to, if any.
        unexplained: after a solution, the share of the target's variance that is left unexplained.
        regression: the last regression.
    """

    layer: Layer
    design: Design
    target: Target
    kept: torch.Tensor
    x: torch.Tensor
    feeder: Fit | None = None
    stays: torch.Tensor | None = None
    shortcut: torch.Tensor | None = None
    unexplained: float = 0.0
    regression: Regression | None = None  # the last regression

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output after its batch norm, computed in one pass over the memory."""
        return self.affine(x.dtype)(x)

    def solve(self) -> bool:
        """Fits the layer to the sampled rows of all examples.

        Returns:
            Whether the weights were changed; they are not if the output already equals the target.

        Raises:
            torch.linalg.LinAlgError: rows or targets are not finite; nothing is written.
        """
        rows, positions = self.target.rows[:, self.kept], self.target.positions
        if self.shortcut is not None:
            rows = rows - in_channels(self.design.outputs(self.shortcut, positions))
        goal = rows.reshape(len(rows), self.design.groups, -1).transpose(0, 1)
        return self._solve(self.design.rows(self.x, positions), goal)

    def solve_with_feeder(self, feeder: Fit, iterations: int) -> None:
        """Fits both layers together on the first examples, and then this layer alone with `solve`."""
        goal = self._whole_goal()
        examples = feeder.x[: len(goal)]
        try:
            changed = self._solve_on_first(feeder(examples).relu_(), goal)
            if changed:
                self._solve_jointly(feeder, examples.float(), goal, iterations)
        finally:
            self.x = feeder(feeder.x).relu_()
        if changed:
            self.solve()

    def affine(self, dtype: torch.dtype = torch.float32) -> Affine:
        """The layer and its batch norm as one affine map."""
        weight, bias = (part.to(dtype) for part in self._folded())
        return Affine(self.layer.module, self.design, self.design.shaped(weight), bias.flatten())

    def put(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Writes (g, o, k) weights and (g, o) constants.

        A batch norm gets the statistics of its new input, so that re-estimating it changes nothing.
        """
        module, norm = self.layer.module, self.layer.norm
        write(module.weight, self.design.shaped(weight))
        if norm is None:
            if module.bias is not None:
                write(module.bias, bias.flatten())
            return
        if module.bias is not None:
            write(module.bias, torch.zeros(bias.numel()))
        assert self.regression, "weights are written only after they were solved for"
        mean, variance = self.regression.spread(weight)
        write(norm.running_mean, mean.flatten())
        write(norm.running_var, variance.flatten())
        write(norm.weight, torch.sqrt(variance + norm.eps).flatten())
        write(norm.bias, (bias + mean).flatten())

    def _whole_goal(self) -> torch.Tensor:
        """The target for the first examples, float32."""
        whole = self.target.whole.index_select(-len(self.design.axes) - 1, self.kept).float()
        return whole if self.shortcut is None else whole - self.shortcut[: len(whole)].float()

    def _solve_on_first(self, x: torch.Tensor, goal: torch.Tensor) -> bool:
        """Fits the layer like `solve`, to as many rows of the first examples x."""
        total = self.design.count(x)
        positions = torch.linspace(0, total - 1, min(total, len(self.target.positions))).long()
        return self._solve(self.design.rows(x, positions), self.design.outputs(goal, positions))

    def _solve_jointly(self, feeder: Fit, examples: torch.Tensor, goal: torch.Tensor, iterations: int) -> None:
        assert feeder.regression, "the feeder must be solved for alone first"
        assert self.regression, "the layer must be solved for alone first"
        divide = feeder.regression.divided, self.regression.divided
        rectified = self.target.rectified
        both = fit_jointly(
            feeder.affine(), self.affine(), divide, examples, goal, iterations=iterations, rectified=rectified
        )
        for fit, solved in zip((feeder, self), both, strict=True):
            weight = fit.design.flat(solved.weight).double()
            fit.put(weight, solved.bias.double().reshape(weight.shape[:2]))

    def _solve(self, rows: torch.Tensor, goal: torch.Tensor) -> bool:
        regression = Regression(rows, self._folded()[0], constant=has_constant(self.layer), stays=self.stays)
        self.regression = regression
        variance = float(goal.var(dim=1, correction=0).mean())
        left = self._misfit(regression, goal)
        changed = not left <= UNCHANGED * variance  # also for NaN
        if changed:
            weight, bias = (regression.solve_rectified if self.target.rectified else regression.solve)(goal)
            if not (weight.isfinite().all() and bias.isfinite().all()):
                cause = "the dense network's outputs are not finite"
                raise torch.linalg.LinAlgError(cause)  # type: ignore[attr-defined]  # torch forgets to export it
            self.put(weight, bias)
            left = self._misfit(regression, goal)
            regression.release()
        self.unexplained = left / variance if variance > 0 else 0.0
        return changed

    def _misfit(self, regression: Regression, goal: torch.Tensor) -> float:
        weight, bias = self._folded()
        return float((regression.fitted(weight.cpu().double(), bias.cpu().double()) - goal).square().mean())

    def _folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(g, o, k) weights and (g, o) constants of the layer and its batch norm together."""
        module, norm = self.layer.module, self.layer.norm
        weight = self.design.flat(cast(torch.Tensor, module.weight).detach().float())
        shape = weight.shape[:2]
        given = cast(torch.Tensor | None, module.bias)
        bias = torch.zeros(shape) if given is None else given.detach().float().reshape(shape)
        if norm is None:
            return weight, bias.to(weight)
        scale = norm.weight.detach() / torch.sqrt(cast(torch.Tensor, norm.running_var) + norm.eps)
        scale = scale.float().reshape(shape)
        mean, shift = (cast(torch.Tensor, x).detach().float().reshape(shape) for x in (norm.running_mean, norm.bias))
        return weight * scale[:, :, None], (bias.to(weight) - mean) * scale + shift


def has_constant(layer: Layer) -> bool:
    """Whether a layer can absorb a constant, in its batch norm or its bias."""
    return layer.norm is not None or layer.module.bias is not None


def write(tensor: torch.Tensor | nn.Module | None, values: torch.Tensor) -> None:
    """Writes to a parameter or buffer, if it exists."""
    cast(torch.Tensor, tensor).data.copy_(values)
