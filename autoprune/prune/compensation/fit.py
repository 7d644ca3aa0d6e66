"""One layer of a pruned network while it is fitted: its targets, and how its weights are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from autoprune.prune.compensation.choice import Sample, choose_ridge
from autoprune.prune.compensation.flow import Layer
from autoprune.prune.compensation.joint import Affine, Examples, Pair, fit_jointly
from autoprune.prune.compensation.reference import Target
from autoprune.prune.moments.design import Design
from autoprune.prune.moments.rectifier import Rectifier
from autoprune.prune.moments.regression import Regression

START = 5  # every fifth row of whole examples starts a joint fit; all of them gave the same
UNCHANGED = 1e-7  # share of the target's variance below which a layer is left unchanged


@dataclass(frozen=True)
class LayerFit:
    """What became of one layer.

    Attributes:
        unexplained: the share of its target's variance that a fit of the other rows leaves unexplained on the rows that
            are held out (0: equal to the dense network's output).
        ridge: the ridge that is best on these, as a share of the mean diagonal of the second moments; `math.inf` if the
            layer kept the weights that it had, and only a constant was fitted.
        rows: the number of rows of the fit.
        columns: the number of weights of each output.
    """

    unexplained: float
    ridge: float
    rows: int
    columns: int

    @property
    def kept(self) -> bool:
        """Whether the fit was kept."""
        return self.ridge < math.inf


@dataclass
class Fit:
    """A layer that is being fitted to its target's `kept` channels.

    Attributes:
        layer: the layer.
        design: its design.
        target: what is known of the dense network's outputs.
        goal: the layer of the dense network whose output is the target: this one, or, where residual branches that
            follow are removed, the last layer of these, whose sum the network is to have instead of its own.
        kept: the kept channels of the target; None for all.
        feeder: the fit of the layer whose rectified output is the input, if the two are fitted jointly.
        feeds: whether it is such a feeder itself.
        stays: (g, o, k) booleans of the nonzero entries, which alone may change; None for all.
        result: what became of the layer; None before a solution.
        regression: the last regression.
    """

    layer: Layer
    design: Design
    target: Target
    goal: str
    kept: torch.Tensor | None
    feeder: Fit | None = None
    feeds: bool = False
    stays: torch.Tensor | None = None
    result: LayerFit | None = None
    regression: Regression | None = field(default=None, repr=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The layer's output after its batch norm, computed in one pass over the memory."""
        return self.affine(x.dtype)(x)

    def rectified(self, x: torch.Tensor) -> torch.Tensor:
        """The output of a layer that feeds another one, as the other one reads it."""
        return self.rectifier(self(x))

    @property
    def rectifier(self) -> Rectifier:
        """The activation of a layer that feeds another one."""
        assert self.target.rectifier, "only a rectifier reads the output of a feeder"
        return self.target.rectifier

    def kept_of_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """(g, n, o) the kept channels of (n, c) outputs of the dense layer, in the groups of this one."""
        return self.design.grouped(rows if self.kept is None else rows[:, self.kept])

    def kept_channels(self, y: torch.Tensor) -> torch.Tensor:
        """The kept channels of the dense layer's output, in its own shape."""
        return y if self.kept is None else y.index_select(-len(self.design.axes) - 1, self.kept)

    def solve(self, sample: Sample) -> bool:
        """Fits the layer to the rows, with the ridge that is best on those held out; False if it was right already.

        Raises torch.linalg.LinAlgError if rows or targets are not finite; nothing is written then.
        """
        constant, rectifier = has_constant(self.layer), self.target.rectifier
        (prior, bias), (_, rows, columns) = self._folded(), sample.rows.shape
        variance = float(sample.goal.var(dim=1, correction=0).mean())
        self.regression = Regression(sample.rows, prior, constant=constant, stays=self.stays)
        left = self.regression.error(prior, bias, sample.goal)
        if left <= UNCHANGED * variance:
            self.result = LayerFit(left / variance if variance > 0 else 0.0, math.inf, rows, columns)
            return False
        chosen = choose_ridge(self.regression, sample, rectifier)
        self.regression.ridge = chosen.ridge
        if rectifier is None:
            weight, bias = self.regression.solve(sample.goal)
        else:
            weight, bias = self.regression.solve_rectified(sample.goal, rectifier)
        if not (weight.isfinite().all() and bias.isfinite().all()):
            cause = "the dense network's outputs are not finite"
            raise torch.linalg.LinAlgError(cause)  # type: ignore[attr-defined]  # torch forgets to export it
        self.put(weight, bias)
        self.regression.release()
        self.result = LayerFit(chosen.unexplained, chosen.ridge, rows, columns)
        return True

    def solve_with_feeder(self, feeder: Fit, examples: Sequence[Examples], iterations: int) -> bool:
        """Fits both layers together on whole examples; False if this one is right already.

        Fits this one alone first, to the rows of these examples, as a joint fit starts from there.
        """
        assert feeder.regression, "it was solved for alone"
        parts = [self._sample(feeder.rectified(own.x), own) for own in examples]
        if not self.solve(Sample.joined(parts)):
            return False
        assert self.regression, "it was solved for alone"
        pair = Pair(feeder.affine(), self.affine(), feeder.rectifier, self.target.rectifier)
        divide = feeder.regression.divided, self.regression.divided
        pair = fit_jointly(pair, divide, examples, iterations=iterations)
        for fit, solved in ((feeder, pair.first), (self, pair.second)):
            weight = fit.design.flat(solved.weight)
            fit.put(weight, solved.bias.reshape(weight.shape[:2]))
        return True

    def let_go(self) -> None:
        """Frees the regressions that no joint fit needs any more."""
        if self.feeder is not None:
            self.feeder.regression = None
        if not self.feeds:
            self.regression = None

    def affine(self, dtype: torch.dtype = torch.float32) -> Affine:
        """The layer and its batch norm as one affine map."""
        weight, bias = (part.to(dtype) for part in self._folded())
        return Affine(self.layer.module, self.design, self.design.shaped(weight), bias.flatten())

    def put(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Writes (g, o, k) weights and (g, o) constants.

        A batch norm gets the statistics of its new input, so that re-estimating it changes nothing. Before it, each
        output keeps the norm of its weights, as the batch norm undoes any scale: the step size of a later training
        depends on that norm (van Laarhoven 2017, https://arxiv.org/abs/1706.05350, section 2).
        """
        module, norm = self.layer.module, self.layer.norm
        if norm is None:
            write(module.weight, self.design.shaped(weight))
            if module.bias is not None:
                write(module.bias, bias.flatten())
            return
        if module.bias is not None:
            write(module.bias, torch.zeros(bias.numel()))
        assert self.regression, "what is written was solved for, or jointly after that"
        mean, variance = self.regression.spread(weight)
        scale = self._rescaled(weight)
        write(module.weight, self.design.shaped(weight * scale[:, :, None].to(weight)))
        write(norm.running_mean, (mean * scale).flatten())
        write(norm.running_var, (variance * scale**2).flatten())
        write(norm.weight, (torch.sqrt(variance * scale**2 + norm.eps) / scale).flatten())
        write(norm.bias, (self.regression.doubled(bias) + mean).flatten())

    def _rescaled(self, weight: torch.Tensor) -> torch.Tensor:
        """(g, o) factors that give new weights the norms of the present ones; 1 where either has none."""
        assert self.regression, "what is written was solved for, or jointly after that"
        present = self.design.flat(cast(torch.Tensor, self.layer.module.weight).detach().float())
        before, after = (self.regression.doubled(part).norm(dim=2) for part in (present, weight))
        return torch.where((before > 0) & (after > 0), before / after, torch.ones_like(after))

    def _sample(self, x: torch.Tensor, examples: Examples) -> Sample:
        """Some rows of whole examples, enough to start a joint fit from."""
        total = self.design.count(x)
        positions = torch.arange(total)
        positions = positions[positions % (total // len(x)) % START == 0]
        held = torch.full((len(positions),), examples.held)
        return Sample(self.design.rows(x, positions), self.design.outputs(examples.goal, positions), held)

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
