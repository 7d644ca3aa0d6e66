"""Joint fit of two layers with a rectifier between them, so that the second one corrects the error of the first one.

Least squares for one layer at a time can make the first layer reproduce the dense network's activations at the kept
channels, but cannot adapt them to the second layer. Together the layers compute y = V2 relu(V1 x + b1) + b2, and for
small changes, with every activation on its present side of 0 (and of the ceiling of a ReLU6), y is linear in V1, b1, V2
and b2. So we solve a linear least-squares problem by a few steps of conjugate gradients, preconditioned by the second
moments of both layers' inputs. The step is halved until the true error falls; if it does not fall, the layers stay
unchanged.

Source:
    The Gauss-Newton method (Nocedal and Wright, Numerical Optimization, 2006, section 10.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn
from torch.func import functional_call

from autoprune.prune.devices.precision import precise_dtype
from autoprune.prune.moments.design import Design
from autoprune.prune.moments.rectifier import RELU, Rectifier

SHORTEST = 1 / 8  # shortest fraction of a step; if it does not help either, the fit is left unchanged

Tensors = Sequence[torch.Tensor]
Divide = Callable[[torch.Tensor], torch.Tensor]  # (g, o, k) times the inverse second moments of a layer's input


@dataclass(frozen=True)
class Affine:
    """A layer with its batch norm folded in.

    Attributes:
        module: the layer's module.
        design: its design.
        weight: the folded weight, in the shape of the module's weight.
        bias: (o,) folded bias.
    """

    module: nn.Module
    design: Design
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        given = {"weight": self.weight, "bias": self.bias}  # torch accepts a bias for modules without one, too
        return functional_call(self.module, given, (x,))  # type: ignore[no-any-return]


class Examples(NamedTuple):
    """Whole examples: the input of the first layer, the target of the second, and whether they are held out."""

    x: torch.Tensor
    goal: torch.Tensor
    held: bool = False


@dataclass(frozen=True)
class Pair:
    """Two layers with a rectifier between them.

    Attributes:
        first: the first layer.
        second: the second layer.
        between: the rectifier that reads the first layer's output.
        behind: the rectifier that alone reads the second layer's output, if there is one.
    """

    first: Affine
    second: Affine
    between: Rectifier = RELU
    behind: Rectifier | None = None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))

    def goal(self, examples: Examples) -> torch.Tensor:
        """The target, or the present output wherever a rectifier makes the same of both."""
        return examples.goal if self.behind is None else self.behind.lenient(examples.goal, self(examples.x))

    def error(self, examples: Sequence[Examples]) -> float:
        """The sum of squared errors."""
        precise = precise_dtype(self.first.weight.device)
        return float(sum((self(one.x) - one.goal).square().sum(dtype=precise) for one in examples))  # fetched once

    def moved(self, step: Tensors, length: float) -> Pair:
        """The pair after a part of a step."""
        first, second = self.first, self.second
        return replace(
            self,
            first=replace(first, weight=first.weight + length * step[0], bias=first.bias + length * step[1]),
            second=replace(second, weight=second.weight + length * step[2], bias=second.bias + length * step[3]),
        )


def fit_jointly(pair: Pair, divide: tuple[Divide, Divide], examples: Sequence[Examples], *, iterations: int) -> Pair:
    """Changes both layers so that the pair's output approaches the target in the mean square, in float32.

    The problem is linearised once; two linearisations with half as many iterations each were no better.

    Args:
        pair: both layers.
        divide: `Regression.divided` of both layers; entries that it sets to 0 do not change.
        examples: inputs of the first layer and wanted outputs of the second. The step is as long as it helps on those
            that are held out, if there are any.
        iterations: the number of conjugate-gradient steps.

    Returns:
        Both layers; unchanged if no step lowers the error.
    """
    fitted = [one for one in examples if not one.held]
    residuals = [pair.goal(one) - pair(one.x) for one in fitted]
    step = _gauss_newton(pair, divide, [one.x for one in fitted], residuals, iterations)
    judges = [one for one in examples if one.held] or fitted
    return _shortened(pair, [one._replace(goal=pair.goal(one)) for one in judges], step)


def _shortened(pair: Pair, examples: Sequence[Examples], step: Tensors) -> Pair:
    """The pair after the longest of step, step / 2, ... that lowers the error, or as it is."""
    error, length = pair.error(examples), 1.0
    while length >= SHORTEST:
        moved = pair.moved(step, length)
        if moved.error(examples) < error:  # False for NaN
            return moved
        length /= 2
    return pair


class _Part:
    """The pair on some of the examples, linearised where it is."""

    def __init__(self, pair: Pair, x: torch.Tensor) -> None:
        first, second = self.first, self.second = pair.first, pair.second
        self.x = x
        with torch.enable_grad():
            parts = (first.weight, first.bias, second.weight, second.bias)
            self._leaves = [part.detach().requires_grad_() for part in parts]
            before = replace(first, weight=self._leaves[0], bias=self._leaves[1])(x)
            hidden = pair.between(before)
            self._output = replace(second, weight=self._leaves[2], bias=self._leaves[3])(hidden)
        self.active, self.hidden = pair.between.passes(before).detach(), hidden.detach()

    def forward(self, d: Tensors) -> torch.Tensor:
        """The change of the output for changes of (V1, b1, V2, b2), while activations keep their signs."""
        through = replace(self.first, weight=d[0], bias=d[1])(self.x) * self.active
        design = self.second.design
        weight = torch.cat([self.second.weight, d[2]], dim=design.input_dim)
        both = _beside(design, through, self.hidden)  # one pass, not two
        return replace(self.second, weight=weight, bias=d[3])(both)

    def adjoint(self, u: torch.Tensor) -> Tensors:
        """The transpose of `forward`."""
        return torch.autograd.grad(self._output, self._leaves, u, retain_graph=True)


def _gauss_newton(
    pair: Pair,
    divide: tuple[Divide, Divide],
    inputs: Sequence[torch.Tensor],
    residuals: Sequence[torch.Tensor],
    iterations: int,
) -> list[torch.Tensor]:
    """The change of (V1, b1, V2, b2) that best removes the residuals while activations keep their signs."""
    parts = [_Part(pair, x) for x in inputs]

    def forward(d: Tensors) -> Tensors:
        return [part.forward(d) for part in parts]

    def adjoint(u: Tensors) -> Tensors:
        own = [part.adjoint(one) for part, one in zip(parts, u, strict=True)]
        return [torch.stack(same).sum(dim=0) for same in zip(*own, strict=True)] if len(own) > 1 else own[0]

    precondition = _preconditioner(pair, divide, parts)
    return _conjugate_gradients(forward, adjoint, precondition, residuals, iterations)


def _beside(design: Design, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Concatenates the channels of two inputs, group by group, to one input for concatenated weights."""
    dim = left.dim() - len(design.axes) - 1
    channels = [x.movedim(dim, -1) for x in (left, right)]
    grouped = [x.reshape(*x.shape[:-1], design.groups, -1) for x in channels]  # (..., g, c / g)
    return torch.cat(grouped, dim=-1).flatten(-2).movedim(-1, dim)


def _conjugate_gradients(
    forward: Callable[[Tensors], Tensors],
    adjoint: Callable[[Tensors], Tensors],
    precondition: Callable[[Tensors], list[torch.Tensor]],
    residual: Tensors,
    iterations: int,
) -> list[torch.Tensor]:
    """Solves the normal equations by preconditioned conjugate gradients, started at zero (Björck 1996, section 7.4)."""
    gradient = adjoint(residual)
    search = precondition(gradient)
    solution = [torch.zeros_like(part) for part in search]
    size = _dot(gradient, search)
    for _ in range(iterations):
        ahead = forward(search)
        bend = _dot(ahead, ahead)
        if not torch.minimum(bend, size) > 0:  # solved, or not a number
            break
        solution = [a + size / bend * b for a, b in zip(solution, search, strict=True)]
        residual = [a - size / bend * b for a, b in zip(residual, ahead, strict=True)]
        gradient = adjoint(residual)
        scaled = precondition(gradient)
        grown, size = _dot(gradient, scaled) / size, _dot(gradient, scaled)
        search = [a + grown * b for a, b in zip(scaled, search, strict=True)]
    return solution


def _dot(left: Tensors, right: Tensors) -> torch.Tensor:
    """The inner product, which stays on the device."""
    return sum(((a * b).sum() for a, b in zip(left, right, strict=True)), torch.zeros((), device=left[0].device))


def _preconditioner(
    pair: Pair, divide: tuple[Divide, Divide], parts: Sequence[_Part]
) -> Callable[[Tensors], list[torch.Tensor]]:
    """Makes a function that divides gradients by the second moments of each layer's rows.

    The gradients of the first layer are also divided by the sensitivity of the output to each hidden channel: the
    frequency of its activation times the energy of the weights that read it.
    """
    first, second = pair.first, pair.second
    places = sum(second.design.count(part.hidden) for part in parts)
    channels = [part.active.float().movedim(-len(first.design.axes) - 1, -1).flatten(0, -2) for part in parts]
    active = sum(part.sum(dim=0) for part in channels) / sum(map(len, channels))
    reads = second.design.flat(second.weight).square().sum(dim=1)  # (g, k)
    passed = (
        reads.reshape(len(reads), -1, second.design.kernel).sum(dim=2).flatten() * active + 1e-12
    )  # (hidden channels,)

    def precondition(gradient: Tensors) -> list[torch.Tensor]:
        weight_first, bias_first, weight_second, bias_second = (part / places for part in gradient)
        scaled = first.design.flat(weight_first) / passed.reshape(first.design.groups, -1, 1)
        return [
            first.design.shaped(divide[0](scaled).to(scaled)),
            bias_first / passed,
            second.design.shaped(divide[1](second.design.flat(weight_second)).to(weight_second)),
            bias_second,
        ]

    return precondition
