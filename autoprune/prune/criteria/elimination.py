"""The damages of a consumer's positions while some of them are removed and all others compensate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch

from autoprune.prune.criteria.contract import ConsumerStatistics
from autoprune.prune.moments.refit import columns_of
from autoprune.prune.moments.ridge import strength

PROBES = 4
TOLERANCE = 0.01  # of quadratic forms of the inverse
ROWS = 512  # rows of the Hessian that are in float64 at a time


class Inaccurate(Exception):
    """Rounding errors of float32 have become too large."""


class Elimination:
    """Weights and the inverse Hessian of consumers that share it, over the columns of the positions that remain.

    A removed position's place goes to the last one that remains: the matrices shrink without being copied. A weight
    with more outputs than columns is replaced by its triangular factor, which gives the same damages.

    Args:
        consumers: the statistics of the consumers, which differ only in their weights.
        dtype: the precision of all updates. The first inverse is made in float64.

    Raises:
        Inaccurate: the precision is float32 and does not suffice; also raised by the methods.
    """

    def __init__(self, consumers: Sequence[ConsumerStatistics], dtype: torch.dtype) -> None:
        self.block = consumers[0].columns.shape[1]
        self._gram, self._ridge, self._dtype = consumers[0].gram, consumers[0].ridge, dtype
        columns = consumers[0].columns.flatten()
        self._kept = columns.clone()
        weight = torch.cat([_scaled(consumer)[:, columns] for consumer in consumers]).to(dtype)
        reduced = torch.linalg.qr(weight, mode="r")[1] if len(weight) > len(columns) else weight
        self.weight = reduced.T.contiguous()  # (k, o)
        self.inverse = _inverse(self._gram, self._ridge)
        if not torch.equal(columns, torch.arange(len(self.inverse))):
            self.inverse = self.inverse[columns][:, columns]
        self.inverse = self.inverse.to(dtype)
        self.check()

    @property
    def positions(self) -> int:
        """The number of positions that remain."""
        return len(self._kept) // self.block

    def damages(self) -> np.ndarray:
        """(r,) the damage of removing each of the remaining positions next, by place."""
        own = self.weight.reshape(-1, self.block, self.weight.shape[1])  # (r, m, o)
        squares = own @ own.transpose(1, 2) if self.block > 1 else torch.linalg.vector_norm(own, dim=2)[..., None] ** 2
        return _damages(_diagonal(self.inverse, self.block), squares)

    def window(self, places: np.ndarray) -> Window:
        """The same for some of the remaining positions, as if only these were there."""
        columns = columns_of(places, self.block)
        weight = self.weight[columns].double()
        return Window(self.inverse[columns][:, columns].double(), weight @ weight.T, self.block)

    def remove(self, places: np.ndarray) -> None:
        """Removes positions at once, with the update of all others."""
        gone = columns_of(places, self.block)
        factor = _factor(self.inverse[gone][:, gone])
        rows = torch.linalg.solve_triangular(factor, self.inverse[gone], upper=False)  # (b * m, k)
        change = torch.linalg.solve_triangular(factor, self.weight[gone], upper=False)  # (b * m, o)
        holes, movers = (columns_of(moved, self.block) for moved in _moves(self.positions, places))
        for matrix in (self.inverse, rows):
            matrix[:, holes] = matrix[:, movers]
        for matrix in (self.inverse, self.weight, self._kept):
            matrix[holes] = matrix[movers]
        left = len(self._kept) - len(gone)
        self._kept, self.weight, rows = self._kept[:left], self.weight[:left], rows[:, :left]
        self.inverse = self.inverse[:left, :left]
        self.inverse.addmm_(rows.T, rows, alpha=-1)
        self.weight.addmm_(rows.T, change, alpha=-1)

    def check(self) -> None:
        """Compares z^T H z with z^T v for z = H^-1 v and random v, which differ by the errors of v^T H^-1 v."""
        if self._dtype == torch.float64 or not len(self._kept):
            return
        probes = torch.randn(len(self._kept), PROBES, generator=torch.Generator().manual_seed(0))
        solved = (self.inverse @ probes).double()
        expected = (solved * probes).sum(dim=0)
        error = (self._quadratic(solved) - expected).abs()
        if not bool((error <= TOLERANCE * expected).all()):
            raise Inaccurate

    def _quadratic(self, vectors: torch.Tensor) -> torch.Tensor:
        """(v,) z^T H z of (k, v) vectors, float64."""
        gram = self._gram
        placed = torch.zeros(len(gram), vectors.shape[1], dtype=torch.float64)
        placed[self._kept] = vectors
        result = (placed.square() * strength(gram, self._ridge)).sum(dim=0)
        for rows, own in zip(torch.split(gram, ROWS), torch.split(placed, ROWS), strict=True):
            result += (own * (rows.double() @ placed)).sum(dim=0)
        return result


class Window:
    """Damages among a few positions in float64, from (k, k) inverse and W^T W; a removed one keeps its place."""

    def __init__(self, inverse: torch.Tensor, square: torch.Tensor, block: int) -> None:
        self.inverse, self.square, self.block = inverse, square, block

    def damages(self) -> np.ndarray:
        """(c,) the damage of removing each position next; of no meaning for those that are removed."""
        return _damages(_diagonal(self.inverse, self.block), _diagonal(self.square, self.block))

    def remove(self, place: int) -> None:
        """Removes one position."""
        own = slice(place * self.block, (place + 1) * self.block)
        rows = self.inverse[own]
        solved = torch.cholesky_solve(rows, _factor(rows[:, own]))  # (m, k)
        cross = self.square[:, own] @ solved
        self.square = self.square - cross - cross.T + solved.T @ self.square[own, own] @ solved
        self.inverse = self.inverse - rows.T @ solved
        self.inverse[own, own] = torch.eye(self.block, dtype=solved.dtype)  # so that it keeps a factor


def without(remaining: np.ndarray, places: np.ndarray) -> np.ndarray:
    """What remains without some places, in the order of `Elimination.remove`."""
    holes, movers = _moves(len(remaining), places)
    moved = remaining.copy()
    moved[holes] = remaining[movers]
    return moved[: len(remaining) - len(places)]


def output_energy(weight: torch.Tensor, gram: torch.Tensor) -> float:
    """The mean square of the output, tr(W H W^T), of an (o, k) weight with (k, k) second moments."""
    return float(((weight @ gram) * weight).sum())


def _scaled(consumer: ConsumerStatistics) -> torch.Tensor:
    """The (o, k) weight relative to its output; a zero output cannot be damaged."""
    energy = output_energy(consumer.weight, consumer.gram) if consumer.energy is None else consumer.energy
    return consumer.weight * (energy**-0.5 if energy > 0 else 0.0)


def _moves(size: int, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The removed places that stay in use, and the last ones that move there."""
    left = size - len(places)
    return np.sort(places[places < left]), np.setdiff1d(np.arange(left, size), places)


def _inverse(gram: torch.Tensor, ridge: float | None) -> torch.Tensor:
    """(k, k) inverse of the second moments with the ridge, float64; at most two such matrices exist at a time."""
    hessian = gram.to(torch.float64, copy=True)
    hessian.diagonal().add_(strength(gram, ridge))
    return torch.cholesky_inverse(_factor(hessian))


def _factor(matrix: torch.Tensor) -> torch.Tensor:
    """Cholesky factors; Inaccurate if there are none, which in float64 the ridge prevents."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    if info.any():
        raise Inaccurate
    return cast(torch.Tensor, factor)


def _diagonal(matrix: torch.Tensor, block: int) -> torch.Tensor:
    """(r, m, m) blocks on the diagonal of (r * m, r * m)."""
    size, (high, wide) = len(matrix) // block, matrix.stride()
    return matrix.as_strided((size, block, block), (block * (high + wide), high, wide))


def _damages(inverse: torch.Tensor, square: torch.Tensor) -> np.ndarray:
    """(r,) tr(W_g^T [H^-1]_gg^-1 W_g) from (r, m, m) blocks of H^-1 and of W^T W."""
    if inverse.shape[1] == 1:
        damage = (square / inverse)[:, 0, 0]
    else:
        damage = (torch.cholesky_inverse(_factor(inverse)) * square).sum(dim=(1, 2))
    return damage.double().numpy()
