"""Joint fit of two layers with a ReLU between them, so that the second one corrects the error of the first one.

Least squares for one layer at a time can make the first layer reproduce the dense network's activations at the kept
channels, but cannot adapt them to the second layer. Together the layers compute y = V2 relu(V1 x + b1) + b2, and for
small changes, with the present sign of every activation, y is linear in V1, b1, V2 and b2. So we solve a linear
least-squares problem by a few steps of conjugate gradients, preconditioned by the second moments of both layers'
inputs. The step is halved until the true error falls; if it does not fall, the layers stay unchanged.

Source:
    The Gauss-Newton method (Nocedal and Wright, Numerical Optimization, 2006, section 10.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.func import functional_call

from autoprune.prune.moments.design import Design
from autoprune.prune.moments.regression import doubled, lenient

SHORTEST = 1 / 8  # the shortest fraction of a step that is tried

Tensors = Sequence[torch.Tensor]
Divide = Callable[
    [torch.Tensor], torch.Tensor
]  # (g, o, k) float64, times the inverse second moments of a layer's input


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


def fit_jointly(
    first: Affine,
    second: Affine,
    divide: tuple[Divide, Divide],
    x: torch.Tensor,
    target: torch.Tensor,
    *,
    iterations: int,
    rectified: bool = False,
) -> tuple[Affine, Affine]:
    """Changes both layers so that second(relu(first(x))) approaches the target in the mean square, in float32.

    The problem is linearised once; two linearisations with half as many iterations each were no better.

    Args:
        first: the first layer.
        second: the second layer.
        divide: `Regression.divided` of both layers; entries that it sets to 0 do not change.
        x: the input of the first layer.
        target: the wanted output of the second layer.
        iterations: the number of conjugate-gradient steps.
        rectified: whether a ReLU reads the output, so that any negative output fits a negative target.

    Returns:
        Both layers; unchanged if no step lowers the error.
    """
    output = second(first(x).relu())
    residual = (lenient(target, output) if rectified else target) - output
    step = _gauss_newton(first, second, divide, x, residual, iterations)
    return _shortened(first, second, x, output + residual, float(residual.square().mean()), step) or (first, second)


def _shortened(
    first: Affine, second: Affine, x: torch.Tensor, target: torch.Tensor, error: float, step: Tensors
) -> tuple[Affine, Affine] | None:
    """Both layers after the longest of step, step / 2, ... that lowers the error; None if none of them does."""
    length = 1.0
    while length >= SHORTEST:
        moved = _moved(first, step[0], step[1], length), _moved(second, step[2], step[3], length)
        if float((moved[1](moved[0](x).relu()) - target).square().mean()) < error:  # False for NaN
            return moved
        length /= 2
    return None


def _moved(layer: Affine, weight: torch.Tensor, bias: torch.Tensor, length: float) -> Affine:
    return replace(layer, weight=layer.weight + length * weight, bias=layer.bias + length * bias)


def _gauss_newton(
    first: Affine,
    second: Affine,
    divide: tuple[Divide, Divide],
    x: torch.Tensor,
    residual: torch.Tensor,
    iterations: int,
) -> list[torch.Tensor]:
    """The change of (V1, b1, V2, b2) that minimises the residual while all activations keep their signs."""
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in (first.weight, first.bias, second.weight, second.bias)]
        before = replace(first, weight=leaves[0], bias=leaves[1])(x)
        hidden = before.relu()
        output = replace(second, weight=leaves[2], bias=leaves[3])(hidden)
    active, hidden = (before > 0).detach(), hidden.detach()

    def forward(d: Tensors) -> torch.Tensor:
        through = replace(first, weight=d[0], bias=d[1])(x) * active
        weight = torch.cat([second.weight, d[2]], dim=second.design.input_dim)
        return replace(second, weight=weight, bias=d[3])(_beside(second.design, through, hidden))  # one pass, not two

    def adjoint(u: torch.Tensor) -> Tensors:
        return torch.autograd.grad(output, leaves, u, retain_graph=True)

    return _conjugate_gradients(forward, adjoint, _preconditioner(first, second, divide, hidden), residual, iterations)


def _beside(design: Design, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Concatenates the channels of two inputs, group by group, to one input for concatenated weights."""
    dim = left.dim() - len(design.axes) - 1
    channels = [x.movedim(dim, -1) for x in (left, right)]
    grouped = [x.reshape(*x.shape[:-1], design.groups, -1) for x in channels]  # (..., g, c / g)
    return torch.cat(grouped, dim=-1).flatten(-2).movedim(-1, dim)


def _conjugate_gradients(
    forward: Callable[[Tensors], torch.Tensor],
    adjoint: Callable[[torch.Tensor], Tensors],
    precondition: Callable[[Tensors], list[torch.Tensor]],
    residual: torch.Tensor,
    iterations: int,
) -> list[torch.Tensor]:
    """Solves the normal equations by preconditioned conjugate gradients, started at zero (Björck 1996, section 7.4)."""
    gradient = adjoint(residual)
    search = precondition(gradient)
    solution = [torch.zeros_like(part) for part in search]
    size = _dot(gradient, search)
    for _ in range(iterations):
        ahead = forward(search)
        bend = float(ahead.square().sum())
        if not bend > 0 or not size > 0:  # solved, or not a number
            break
        solution = [a + size / bend * b for a, b in zip(solution, search, strict=True)]
        residual = residual - size / bend * ahead
        gradient = adjoint(residual)
        scaled = precondition(gradient)
        grown, size = _dot(gradient, scaled) / size, _dot(gradient, scaled)
        search = [a + grown * b for a, b in zip(scaled, search, strict=True)]
    return solution


def _dot(left: Tensors, right: Tensors) -> float:
    return float(sum((a * b).sum() for a, b in zip(left, right, strict=True)))


def _preconditioner(
    first: Affine, second: Affine, divide: tuple[Divide, Divide], hidden: torch.Tensor
) -> Callable[[Tensors], list[torch.Tensor]]:
    """Makes a function that divides gradients by the second moments of each layer's rows.

    The gradients of the first layer are also divided by the sensitivity of the output to each hidden channel: the
    frequency of its activation times the energy of the weights that read it.
    """
    places = second.design.count(hidden)
    active = (hidden > 0).float().movedim(-len(first.design.axes) - 1, -1).flatten(0, -2).mean(dim=0)
    reads = second.design.flat(second.weight).square().sum(dim=1)  # (g, k)
    passed = (
        reads.reshape(len(reads), -1, second.design.kernel).sum(dim=2).flatten() * active + 1e-12
    )  # (hidden channels,)

    def precondition(gradient: Tensors) -> list[torch.Tensor]:
        weight_first, bias_first, weight_second, bias_second = (part / places for part in gradient)
        scaled = first.design.flat(weight_first) / passed.reshape(first.design.groups, -1, 1)
        return [
            first.design.shaped(divide[0](doubled(scaled)).to(scaled)),
            bias_first / passed,
            second.design.shaped(divide[1](doubled(second.design.flat(weight_second))).to(weight_second)),
            bias_second,
        ]

    return precondition
