"""Why a group loses more than another: the gradient and the curvature of its loss at the dense network's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from autoprune.measure.batch import Batch
from autoprune.measure.outputs import logits_of, target_of
from autoprune.prune.modules.borrowed import seeded
from autoprune.prune.modules.copies import copy_model

ITERATIONS = 20  # number of power iterations

Loss = Callable[[nn.Module, Batch], torch.Tensor]
Change = Mapping[str, torch.Tensor]  # the change of each parameter, by name; a missing one does not change


@dataclass(frozen=True)
class Expansion:
    """The loss of a group around the weights of a network.

    Attributes:
        gradient_norm: the norm |g| of the gradient.
        curvature: the eigenvalue of the Hessian H with the largest absolute value.
        changes: for each change d of the weights, the second-order estimate g'd + d'Hd / 2 of the change of the loss.
    """

    gradient_norm: float
    curvature: float
    changes: tuple[float, ...]


def cross_entropy(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The mean cross entropy with the targets."""
    return functional.cross_entropy(logits_of(model(*batch.inputs)), target_of(batch))


def expand(model: nn.Module, batch: Batch, changes: Sequence[Change] = (), loss: Loss = cross_entropy) -> Expansion:
    """The gradient and the curvature of the loss on a batch, by all parameters of the network in eval mode.

    The model is not changed. Halves are computed in single precision.

    Source:
        Tran et al., Pruning has a disparate impact on model accuracy, 2022 (https://arxiv.org/abs/2205.13574), theorem
        1, bounds the excessive loss of a group by |g| |d| + curvature |d|^2 / 2 for a change d of the weights.
    """
    probe = _differentiable(model)
    weights = dict(probe.named_parameters())
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), seeded(0):  # the fused attentions have no second derivative
        value = loss(probe, batch)
        gradient = _gradient(value, weights, graph=True)
        directions = [
            {name: change[name].to(weights[name]) for name in change if name in weights} for change in changes
        ]
        estimates = [_second_order(gradient, weights, direction) for direction in directions]
        curvature = _curvature(gradient, weights)
    norm = math.hypot(*(float(g.detach().norm()) for g in gradient.values()))
    return Expansion(norm, curvature, tuple(estimates))


def _differentiable(model: nn.Module) -> nn.Module:
    probe = copy_model(model).eval()
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in probe.parameters()):
        probe = probe.float()
    return probe.requires_grad_(True)


def _gradient(value: torch.Tensor, weights: Change, *, graph: bool) -> dict[str, torch.Tensor]:
    found = torch.autograd.grad(
        value, list(weights.values()), create_graph=graph, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(weights, found, strict=True))


def _dot(one: Change, other: Change) -> torch.Tensor:
    """The sum of products over the tensors that both have."""
    return torch.stack([(one[name] * other[name]).sum() for name in other]).sum()


def _product(gradient: Change, weights: Change, direction: Change) -> dict[str, torch.Tensor]:
    """The product of the Hessian with a direction; zero where the gradient does not depend on the weights."""
    value = _dot(gradient, direction)
    if not value.requires_grad:
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    return _gradient(value, weights, graph=False)


def _second_order(gradient: Change, weights: Change, direction: Change) -> float:
    if not direction:
        return 0.0
    product = _product(gradient, weights, direction)
    return float(_dot(gradient, direction).detach() + _dot(product, direction) / 2)


def _curvature(gradient: Change, weights: Change) -> float:
    """The Rayleigh quotient after power iterations from a random direction."""
    generator = torch.Generator().manual_seed(0)
    direction = {name: torch.randn(w.shape, generator=generator).to(w) for name, w in weights.items()}
    quotient = 0.0
    for _ in range(ITERATIONS):
        norm = _dot(direction, direction).sqrt()
        if not norm > 0:  # the Hessian is zero
            return 0.0
        direction = {name: x / norm for name, x in direction.items()}
        product = _product(gradient, weights, direction)
        quotient = float(_dot(product, direction))
        direction = product
    return quotient
