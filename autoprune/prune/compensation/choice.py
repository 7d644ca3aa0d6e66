"""The ridge of a layer's fit, chosen on calibration examples that are held out from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch

from autoprune.prune.moments.regression import lenient, row_factors, solve_rows
from autoprune.prune.moments.ridge import ridged, strength

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # shares of the mean diagonal of the second moments
SAMPLED_OUTPUTS = 16  # of each group of a weight with zeros, where every output has a factor of its own


class Sample(NamedTuple):
    """Rows of a layer with their targets: (g, n, k), (g, n, o), and (n,) booleans of those that are held out."""

    rows: torch.Tensor
    goal: torch.Tensor
    held: torch.Tensor

    @staticmethod
    def joined(parts: Sequence[Sample]) -> Sample:
        rows, goals, held = zip(*parts, strict=True)
        return Sample(torch.cat(rows, dim=1), torch.cat(goals, dim=1), torch.cat(held))

    @property
    def suffices(self) -> bool:
        """Whether there are rows to fit to and rows that are held out."""
        return bool(self.held.any()) and not bool(self.held.all())

    def only(self, outputs: torch.Tensor) -> Sample:
        """The same rows with some of the outputs of each group."""
        return self._replace(goal=self.goal[:, :, outputs])


class Choice(NamedTuple):
    """The best ridge on the held-out rows, and what remains there.

    Attributes:
        ridge: the ridge; `math.inf` if the weights that the layer had, with a constant fitted, are better than any fit.
        unexplained: the share of the target's variance that the fit with that ridge leaves unexplained.
    """

    ridge: float
    unexplained: float


def choose_ridge(
    sample: Sample, prior: torch.Tensor, *, constant: bool, stays: torch.Tensor | None, rectified: bool
) -> Choice:
    """Fits the rows that are not held out with each ridge, from the smallest on, until the error on the others rises.

    Fits are in float32, as only their errors are used. Those of a weight with zeros are of a sample of its outputs.
    Where a ReLU reads the output, an error at a negative target counts only as far as the output is positive.

    Args:
        sample: the rows, their targets, and which are held out.
        prior: (g, o, k) the weights that the layer has.
        constant: whether a constant is fitted.
        stays: (g, o, k) booleans of the entries that may differ from 0; None for all.
        rectified: whether a ReLU reads the output.
    """
    if stays is not None:
        some = torch.linspace(0, prior.shape[1] - 1, min(prior.shape[1], SAMPLED_OUTPUTS)).long()
        sample, prior, stays = sample.only(some), prior[:, some], stays[:, some]
    if not sample.suffices:
        return Choice(math.inf, math.nan)
    goal = sample.goal[:, sample.held]
    variance = float(goal.var(dim=1, correction=0).mean())
    best = Choice(math.nan, math.inf)
    last = math.inf
    for ridge, fitted in _fits(sample, prior.float(), constant, stays):
        left = float(((lenient(goal, fitted) if rectified else goal) - fitted).square().mean())
        if left < best.unexplained:
            best = Choice(ridge, left)
        if last < left and ridge < math.inf:
            break
        last = left if ridge < math.inf else last
    return Choice(best.ridge, best.unexplained / variance if variance > 0 else 0.0)


def _fits(
    sample: Sample, prior: torch.Tensor, constant: bool, stays: torch.Tensor | None
) -> Iterator[tuple[float, torch.Tensor]]:
    """(g, n, o) outputs for the held-out rows, of the prior alone and with each ridge."""
    rows, goal, own = sample.rows[:, ~sample.held], sample.goal[:, ~sample.held], sample.rows[:, sample.held]
    centre, level = (x.mean(dim=1, keepdim=True) if constant else torch.zeros_like(x[:, :1]) for x in (rows, goal))
    rows, own = rows - centre, own - centre
    yield math.inf, own @ prior.to(own).transpose(1, 2) + level
    gram = (rows.transpose(1, 2) @ rows / rows.shape[1]).cpu()
    products = ((goal - level).transpose(1, 2) @ rows / rows.shape[1]).cpu()  # (g, o, k)
    for ridge in RIDGES:
        pulled = products + strength(gram, ridge)[:, :, None] * prior.cpu()
        try:
            weight = _divided(pulled, ridged(gram, ridge), stays)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # torch forgets to export it
            continue  # too little for float32
        yield ridge, own @ weight.to(own).transpose(1, 2) + level


def _divided(products: torch.Tensor, gram: torch.Tensor, stays: torch.Tensor | None) -> torch.Tensor:
    if stays is not None:
        return solve_rows(products, row_factors(gram, stays))
    factor = cast(torch.Tensor, torch.linalg.cholesky(gram))
    return torch.cholesky_solve(products.transpose(1, 2), factor).transpose(1, 2)
