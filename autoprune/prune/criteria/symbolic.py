"""Building blocks of formulas over weights, inputs and gradients: terminals, safe operators, and sums over consumers.

Criteria that `autoprune criterion` writes import this module. The operators are those of run.criterion.formula, on
tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from autoprune.errors import PluginError
from autoprune.prune.criteria.contract import UnitStatistics, UnitWeights
from autoprune.prune.criteria.gradients import taylor
from autoprune.prune.criteria.magnitudes import l2

EPSILON = 1e-12


@dataclass(frozen=True)
class FormulaTerms:
    """The float64 terminals of a unit for one consumer with o outputs, n positions and m columns per position.

    Attributes:
        weight: (o, n, m), the consumer's weight.
        inputs: (1, n, m), the root mean square of the consumer's inputs.
        spread: (1, n, m), the standard deviation of the consumer's inputs.
        producer: (1, n, 1), the l2 norm of a position's producer weights.
        gradient: (1, n, 1), the root mean square over batches of the sum of weight times gradient over a position's
            producer weights; None if gradients were not collected.
    """

    weight: torch.Tensor
    inputs: torch.Tensor
    spread: torch.Tensor
    producer: torch.Tensor
    gradient: torch.Tensor | None


def terms(weights: UnitWeights, statistics: UnitStatistics) -> list[FormulaTerms]:
    """The terminals of a unit for each consumer.

    Raises:
        PluginError: the unit has no statistics of consumers.
    """
    if not statistics.consumers:
        raise PluginError("expected statistics of a consumer, got none. Declare them with @needs('moments').")
    producer = l2(weights, statistics).double()[None, :, None]
    gradient = None if statistics.gradients is None else taylor(weights, statistics).sqrt()[None, :, None]
    return [
        FormulaTerms(
            consumer.weight[:, consumer.columns],
            consumer.square.clamp(min=0.0).sqrt()[consumer.columns][None],
            consumer.variance.sqrt()[consumer.columns][None],
            producer,
            gradient,
        )
        for consumer in statistics.consumers
    ]


def summed(
    formula: Callable[[FormulaTerms], torch.Tensor], weights: UnitWeights, statistics: UnitStatistics
) -> torch.Tensor:
    """(n,) sums of a formula's values over outputs, columns and consumers.

    The formula's value for a consumer is broadcast to the shape of the consumer's weight.
    """
    values = [formula(own).expand(own.weight.shape).sum(dim=(0, 2)) for own in terms(weights, statistics)]
    return torch.stack(values).sum(dim=0)


def divide(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """x / y, and 0 where y is almost 0."""
    safe = y.abs() > EPSILON
    return torch.where(safe, x / torch.where(safe, y, 1.0), 0.0)


def square(x: torch.Tensor) -> torch.Tensor:
    """The square."""
    return x.square()


def root(x: torch.Tensor) -> torch.Tensor:
    """The square root of the magnitude."""
    return x.abs().sqrt()


def log(x: torch.Tensor) -> torch.Tensor:
    """The logarithm of the magnitude, finite at zero."""
    return (x.abs() + EPSILON).log()


def minmax(x: torch.Tensor) -> torch.Tensor:
    """Scales to [0, 1] over all elements; 0 if all are equal."""
    spread = x.max() - x.min()
    return (x - x.min()) / spread if spread > 0 else torch.zeros_like(x)


def zscore(x: torch.Tensor) -> torch.Tensor:
    """Scales to mean 0 and standard deviation 1 over all elements; 0 if all are equal."""
    spread = x.std(correction=0)
    return (x - x.mean()) / spread if spread > 0 else torch.zeros_like(x)
