"""Which examples are held out from regressions, and the ridge that is best on them where a weight has few rows."""

from __future__ import annotations

import numpy as np
import torch

from autoprune.prune.moments.ridge import RIDGE, RIDGES, ridged

EVERY = 5  # one example of so many is held out
BLOCKS = 20  # the number of blocks of adjacent rows, of which every fifth is held out, if there are too few examples
NEARLY = 0.1  # share of the least error on held-out rows by which the error with a smaller ridge may be larger


def held_examples(examples: torch.Tensor, total: int) -> torch.Tensor:
    """Whether examples, given by their numbers, are held out: every fifth of all, and none of fewer than five."""
    return (examples % EVERY == EVERY - 1) & (total >= EVERY)


def held_rows(positions: torch.Tensor, rows: int, examples: int, first: int, total: int) -> torch.Tensor:
    """Whether rows are held out: those of every fifth example, or of every fifth block of rows of too few examples.

    Args:
        positions: (n,) the numbers of the rows among those of a batch.
        rows: the number of rows of the batch, which are in the order of its examples.
        examples: the number of examples of the batch.
        first: the number of examples before the batch.
        total: the number of all examples.
    """
    if total >= EVERY:
        return held_examples(first + positions * examples // rows, total)
    return positions * BLOCKS // rows % EVERY == EVERY - 1


def choose_ridge(weight: torch.Tensor, fitted: torch.Tensor, held: torch.Tensor, block: int) -> float:
    """The smallest ridge that is nearly the best for a weight on rows that are held out, if every second input is kept.

    Ridges are tried from the smallest on, until the error on the held-out rows rises. A small one loses less where few
    inputs go, so a larger one has to gain more than NEARLY.

    Args:
        weight: (g, o, d) float64 weight.
        fitted: (g, d, d) float64 second moments of the rows that are not held out.
        held: (g, d, d) float64 second moments of the rows that are held out.
        block: the number of columns of an input.
    """
    columns = torch.from_numpy(np.flatnonzero(np.arange(weight.shape[2]) // block % 2 == 0))
    errors: list[float] = []
    for ridge in RIDGES:
        gram = ridged(fitted, ridge)
        factor = torch.linalg.cholesky(gram[:, columns][:, :, columns])
        change = -weight  # of each output, as a function of all inputs
        change[:, :, columns] += torch.cholesky_solve(gram[:, columns] @ weight.transpose(1, 2), factor).transpose(1, 2)
        errors.append(float(((change @ held) * change).sum()))
        if len(errors) > 1 and not errors[-1] < errors[-2]:
            break
    most = (1 + NEARLY) * min(errors)
    return next((ridge for ridge, error in zip(RIDGES, errors, strict=False) if error <= most), RIDGE)
