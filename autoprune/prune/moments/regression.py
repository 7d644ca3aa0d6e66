"""Affine ridge regressions: the weights that best map a layer's rows to its targets."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from typing import cast

import torch

from autoprune.prune.devices.precision import solvable
from autoprune.prune.moments.rectifier import Rectifier
from autoprune.prune.moments.ridge import RIDGE, ridged, strength

RECTIFIED_ROUNDS = 4  # iterations of a rectified fit; twelve gave the same
OUTPUTS = 4096  # of each group that are solved for at once; a language model has one for each token of its vocabulary


class Regression:
    """Solves argmin over V, c of E|V x + c - t|^2 + r|V - V0|^2 for one set of rows x and any number of targets t.

    Second moments are factored once, on first use, in float64: on the device of the rows if that has it, else on the
    CPU, where also the many small factors of weights with zeros are. If rows are not finite, this raises
    torch.linalg.LinAlgError.

    Args:
        rows: (g, n, k) float32 rows x.
        prior: (g, o, k) weights V0, which are kept in directions that the rows do not determine.
        constant: whether c is fitted; otherwise it is 0.
        stays: (g, o, k) booleans; V is 0 where they are False. None means that all are True.
        ridge: r as a share of the mean diagonal of the second moments; `math.inf` leaves V0 as it is and fits only c.
    """

    def __init__(
        self,
        rows: torch.Tensor,
        prior: torch.Tensor,
        *,
        constant: bool,
        stays: torch.Tensor | None = None,
        ridge: float = RIDGE,
    ) -> None:
        self.mean = rows.mean(dim=1, keepdim=True) if constant else torch.zeros_like(rows[:, :1])
        self.rows = rows - self.mean
        self.constant = constant
        self.stays = stays
        self.prior = self.doubled(prior.detach())
        self.ridge = ridge

    def solvable(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor where the equations are solved."""
        return solvable(tensor) if self.stays is None else tensor.cpu()

    def doubled(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in float64 where the equations are solved."""
        return self.solvable(tensor).double()

    @functools.cached_property
    def moments(self) -> torch.Tensor:
        """(g, k, k) float64 second moments of the rows minus their mean."""
        return self.doubled(self.rows.transpose(1, 2) @ self.rows) / self.rows.shape[1]

    @property
    def _ridged(self) -> torch.Tensor:
        """(g, k, k) second moments and ridge; an infinite ridge, by which nothing is divided, counts as 1."""
        return ridged(self.moments, min(self.ridge, 1.0))

    @functools.cached_property
    def _factor(self) -> torch.Tensor:
        """(g, k, k) Cholesky factors of the moments with the ridge."""
        return cast(torch.Tensor, torch.linalg.cholesky(self._ridged))

    @functools.cached_property
    def _own_factors(self) -> list[Factor]:
        """The factors of the outputs that have remaining columns."""
        assert self.stays is not None, "a dense weight has one factor for all outputs"
        return list(row_factors(self._ridged, self.stays))

    def divided(self, products: torch.Tensor) -> torch.Tensor:
        """Multiplies (g, o, k) products by the inverse of moments plus ridge, for each output over its own columns.

        The result is float64, where the equations are solved.
        """
        products = self.doubled(products)
        if self.stays is None:
            return torch.cholesky_solve(products.transpose(1, 2), self._factor).transpose(1, 2)
        return solve_rows(products, self._own_factors)

    def solve(self, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Solves for (g, n, o) targets; returns float64 (g, o, k) weights and (g, o) constants."""
        groups = output_groups(targets.shape[2]) if self.stays is None else [slice(None)]
        weights, constants = zip(*(self._solved(targets[:, :, own], own) for own in groups), strict=True)
        return torch.cat(weights, dim=1), torch.cat(constants, dim=1)

    def _solved(self, targets: torch.Tensor, own: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights and constants of some of the outputs."""
        prior = self.prior[:, own]
        mean = targets.mean(dim=1, keepdim=True) if self.constant else torch.zeros_like(targets[:, :1])
        weight = prior if self.ridge == math.inf else self._moved(prior, targets - mean)
        return weight, self.doubled(mean)[:, 0] - (weight @ self.doubled(self.mean).transpose(1, 2))[:, :, 0]

    def _moved(self, prior: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        products = self.doubled(self.rows.transpose(1, 2) @ targets).transpose(1, 2) / targets.shape[1]  # (g, o, k)
        return self.divided(products + strength(self.moments, self.ridge)[:, :, None] * prior)

    def solve_rectified(self, targets: torch.Tensor, rectifier: Rectifier) -> tuple[torch.Tensor, torch.Tensor]:
        """Solves like `solve`, for outputs that a ReLU reads: any output fits a negative target if it is negative.

        It alternates between the fit and the targets.

        Source:
            Zhang, Zou, He, Sun 2015 (https://arxiv.org/abs/1505.06798, section 3.2). Departure: a negative target is
            moved to the fitted value itself, which needs no penalty.
        """
        weight, bias = self.solve(targets)
        for _ in range(RECTIFIED_ROUNDS):
            weight, bias = self.solve(rectifier.lenient(targets, self.fitted(weight, bias)))
        return weight, bias

    def fitted(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """(g, n, o) outputs of weights and constants for the rows."""
        weight = self.doubled(weight)
        shift = self.doubled(bias)[:, None] + self.doubled(self.mean) @ weight.transpose(1, 2)  # (g, 1, o)
        return self.rows @ weight.to(self.rows).transpose(1, 2) + shift.to(self.rows)

    def error(self, weight: torch.Tensor, bias: torch.Tensor, targets: torch.Tensor) -> float:
        """The mean square of the outputs of weights and constants less (g, n, o) targets."""
        total = 0.0
        for own in output_groups(targets.shape[2]):
            left = (self.fitted(weight[:, own], bias[:, own]) - targets[:, :, own]).square().mean()
            total += float(left) * (own.stop - own.start)
        return total / targets.shape[2]

    def spread(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(g, o) mean and (g, o) variance of the outputs of (g, o, k) weights for the rows."""
        weight = self.doubled(weight)
        mean = (weight @ self.doubled(self.mean).transpose(1, 2))[:, :, 0]
        return mean, ((weight @ self.moments) * weight).sum(dim=2).clamp(min=0)

    def release(self) -> None:
        """Frees the rows; only `spread` works afterwards."""
        _ = self.moments
        self.rows = self.rows[:, :0]


def output_groups(outputs: int) -> list[slice]:
    """The outputs of a weight in groups of at most OUTPUTS."""
    return [slice(first, min(first + OUTPUTS, outputs)) for first in range(0, outputs, OUTPUTS)]


def factor_bytes(stays: torch.Tensor) -> int:
    """The memory of a weight's factors, in bytes; its entries stay where the (g, o, k) booleans are True."""
    return 8 * int(stays.sum(dim=2).square().sum())


Factor = tuple[int, torch.Tensor, torch.Tensor]  # the index of an output over all groups, its columns, their factor


def refit_entries(weight: torch.Tensor, hessian: torch.Tensor, stays: torch.Tensor) -> torch.Tensor:
    """Solves argmin of tr (W - V) H (W - V)^T over V that are 0 where `stays` is False.

    The kept entries compensate for the removed ones.
    """
    return solve_rows(weight @ hessian, row_factors(hessian, stays))


def solve_rows(products: torch.Tensor, factors: Iterable[Factor]) -> torch.Tensor:
    """Multiplies (g, o, k) products by the inverse Hessian, for each output over its own columns; others become 0."""
    flat = products.flatten(0, -2)
    solved = torch.zeros_like(flat)
    for row, columns, factor in factors:
        solved[row, columns] = torch.cholesky_solve(flat[row, columns, None], factor).squeeze(1)
    return solved.view_as(products)


def row_factors(hessian: torch.Tensor, stays: torch.Tensor) -> Iterator[Factor]:
    """Yields the same as `by_row`, with the Hessian's Cholesky factor in place of the Hessian."""
    for row, columns, own in by_row(hessian, stays):
        yield row, columns, torch.linalg.cholesky(own)


def by_row(hessian: torch.Tensor, stays: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yields, for every output with remaining columns, its index over all groups, its columns, and their Hessian."""
    matrices, rows = hessian.reshape(-1, *hessian.shape[-2:]), stays.flatten(0, -2)
    for row, kept in enumerate(rows):
        columns = kept.nonzero().squeeze(1)
        if len(columns):
            yield row, columns, matrices[row * len(matrices) // len(rows)][columns][:, columns]
