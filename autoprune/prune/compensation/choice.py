"""The ridge of a layer's fit, chosen on calibration examples that are held out from it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import torch

from autoprune.prune.moments.rectifier import Rectifier
from autoprune.prune.moments.regression import OUTPUTS, Regression, row_factors, solve_rows
from autoprune.prune.moments.ridge import RIDGES, ridged, strength

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


def choose_ridge(regression: Regression, sample: Sample, rectifier: Rectifier | None) -> Choice:
    """Fits the rows that are not held out with each ridge, from the smallest on, until the error on the others rises.

    Fits are in float32, as only their errors are used. Those of a weight with zeros, and of one with more than OUTPUTS
    outputs, are of a sample of its outputs.
    Where a ReLU reads the output, an error at a negative target counts only as far as the output is positive.

    Args:
        regression: the regression on all rows, whose prior is the weight that the layer has. It is given the second
            moments, which are computed on the way.
        sample: the rows, their targets, and which are held out.
        rectifier: the activation that alone reads the output, if it is a rectifier.
    """
    if not sample.suffices:
        return Choice(math.inf, math.nan)
    outputs = regression.prior.shape[1]
    most = OUTPUTS if regression.stays is None else SAMPLED_OUTPUTS
    some = torch.linspace(0, outputs - 1, most).long() if outputs > most else torch.arange(outputs)
    goal = sample.goal[:, sample.held][:, :, some]
    variance = float(goal.var(dim=1, correction=0).mean())
    best, last = Choice(math.nan, math.inf), math.inf
    for ridge, fitted in _fits(regression, sample, some):
        left = float(((rectifier.lenient(goal, fitted) if rectifier else goal) - fitted).square().mean())
        if left < best.unexplained:
            best = Choice(ridge, left)
        if ridge < math.inf and left > last:
            break
        last = left if ridge < math.inf else last
    return Choice(best.ridge, best.unexplained / variance if variance > 0 else 0.0)


def _fits(regression: Regression, sample: Sample, some: torch.Tensor) -> Iterator[tuple[float, torch.Tensor]]:
    """(g, n, o) some of the outputs for the held-out rows, of the prior with a constant, and with each ridge."""
    held = sample.held
    rows, own, goal = regression.rows[:, ~held], regression.rows[:, held], sample.goal[:, ~held][:, :, some]
    prior, stays = regression.prior[:, some].float(), None if regression.stays is None else regression.stays[:, some]
    centre, level = (x.mean(dim=1, keepdim=True) * regression.constant for x in (rows, goal))
    yield math.inf, (own - centre) @ prior.to(own).transpose(1, 2) + level
    gram = rows.transpose(1, 2) @ rows
    regression.moments = regression.doubled(gram + own.transpose(1, 2) @ own) / len(held)
    gram = regression.solvable(gram / rows.shape[1] - centre.transpose(1, 2) @ centre)
    products = regression.solvable((goal - level).transpose(1, 2) @ rows / rows.shape[1])  # (g, o, k)
    for ridge in RIDGES:
        try:
            weight = _divided(products + strength(gram, ridge)[:, :, None] * prior, ridged(gram, ridge), stays)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # torch forgets to export it
            continue  # too little for float32
        yield ridge, (own - centre) @ weight.to(own).transpose(1, 2) + level


def _divided(products: torch.Tensor, gram: torch.Tensor, stays: torch.Tensor | None) -> torch.Tensor:
    if stays is not None:
        return solve_rows(products, row_factors(gram, stays))
    factor = cast(torch.Tensor, torch.linalg.cholesky(gram))
    return torch.cholesky_solve(products.transpose(1, 2), factor).transpose(1, 2)
