"""Affine ridge regressions: the weights that best turn a layer's rows into what should come out of it."""

from __future__ import annotations

import functools

import torch

RIDGE = 1e-4  # of the mean diagonal of the second moments; between 1e-5 and 1e-3 it makes no difference
ROUNDS = 4  # of a rectified fit; twelve gave the same


class Regression:
    """argmin over V, c of E|V x + c - t|^2 + r|V - V0|^2 for one set of rows x and any number of targets t.

    `rows` are (g, n, k) float32, `prior` the (g, o, k) weights V0 that directions without evidence keep. Without
    `constant` c is 0. Second moments are factored once, when first needed, in float64 on the CPU; for rows that are not
    finite that raises torch.linalg.LinAlgError.
    """

    def __init__(self, rows: torch.Tensor, prior: torch.Tensor, *, constant: bool) -> None:
        self.mean = rows.mean(dim=1, keepdim=True) if constant else torch.zeros_like(rows[:, :1])
        self.rows = rows - self.mean
        self.prior = doubled(prior.detach())
        self.constant = constant

    @functools.cached_property
    def moments(self) -> torch.Tensor:
        """(g, k, k) second moments of the rows less their mean."""
        return second_moments(self.rows)

    @functools.cached_property
    def _factored(self) -> tuple[torch.Tensor, torch.Tensor]:
        return ridge_factor(self.moments)

    def solve(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(g, o, k) weights and (g, o) constants for (g, n, o) targets, float64 on the CPU."""
        mean = targets.mean(dim=1, keepdim=True) if self.constant else torch.zeros_like(targets[:, :1])
        products = doubled(self.rows.transpose(1, 2) @ (targets - mean)) / targets.shape[1]  # (g, k, o)
        factor, strength = self._factored
        products += strength[:, :, None] * self.prior.transpose(1, 2)
        weight = torch.cholesky_solve(products, factor).transpose(1, 2)
        return weight, doubled(mean)[:, 0] - (weight @ doubled(self.mean).transpose(1, 2))[:, :, 0]

    def solve_rectified(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `solve`, for outputs that a ReLU reads: where the target is negative, any negative output will do.

        Alternates between the fit and the targets, as Zhang, Zou, He, Sun 2015 (https://arxiv.org/abs/1505.06798,
        section 3.2) do; we move a negative target to the fitted value itself and need no penalty.
        """
        weight, bias = self.solve(targets)
        for _ in range(ROUNDS):
            weight, bias = self.solve(lenient(targets, self.fitted(weight, bias)))
        return weight, bias

    def fitted(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(g, n, o) what comes out of the rows."""
        shift = bias[:, None] + doubled(self.mean) @ weight.transpose(1, 2)  # (g, 1, o)
        return self.rows @ weight.to(self.rows).transpose(1, 2) + shift.to(self.rows)

    def spread(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(g, o) mean and (g, o) variance of what (g, o, k) weights make of the rows."""
        mean = (weight @ doubled(self.mean).transpose(1, 2))[:, :, 0]
        return mean, ((weight @ self.moments) * weight).sum(dim=2).clamp(min=0)

    def release(self) -> None:
        """Lets go of the rows; only `spread` works afterwards."""
        _ = self.moments
        self.rows = self.rows[:, :0]


def lenient(targets: torch.Tensor, fitted: torch.Tensor) -> torch.Tensor:
    """Targets of outputs that a ReLU reads: what is fitted will do where both are negative."""
    return torch.where(targets > 0, targets, fitted.clamp(max=0))


def second_moments(rows: torch.Tensor) -> torch.Tensor:
    """(g, k, k) mean of x x^T over (g, n, k) rows, float64 on the CPU."""
    return doubled(rows.transpose(1, 2) @ rows) / rows.shape[1]


def ridge_factor(moments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cholesky factor of (g, k, k) moments with RIDGE of their mean diagonal added, and (g, 1) what was added."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    strength = RIDGE * diagonal.mean(dim=1, keepdim=True)
    strength = torch.where(strength > 0, strength, 1.0)  # rows of zeros leave the prior as it is
    return torch.linalg.cholesky(moments + torch.diag_embed(strength.expand_as(diagonal))), strength


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """In float64 on the CPU."""
    return tensor.cpu().double()
