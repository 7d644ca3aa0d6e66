"""Activations that cut off values: ReLU and those with a ceiling, such as ReLU6."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

CLAMPS = {  # by function: the names of the bounds, and their defaults; None is no bound
    "relu": ((), (0.0, None)),
    "relu_": ((), (0.0, None)),
    "relu6": ((), (0.0, 6.0)),
    "hardtanh": (("min_val", "max_val"), (-1.0, 1.0)),
    "hardtanh_": (("min_val", "max_val"), (-1.0, 1.0)),
    "clamp": (("min", "max"), (None, None)),
    "clamp_": (("min", "max"), (None, None)),
    "clamp_min": (("min",), (None, None)),
    "clamp_min_": (("min",), (None, None)),
}


@dataclass(frozen=True)
class Rectifier:
    """An activation that is the identity between 0 and a ceiling, and constant outside.

    Attributes:
        ceiling: the largest value; infinite for a ReLU.
    """

    ceiling: float = math.inf

    @staticmethod
    def of(function: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Rectifier | None:
        """The rectifier that a call of one of torch's functions is; None if it is another function."""
        if function not in CLAMPS:
            return None
        names, bounds = CLAMPS[function]
        given = dict(zip(names, args[1:], strict=False)) | {name: kwargs[name] for name in names if name in kwargs}
        least, most = (given.get(name, bound) for name, bound in zip((*names, "", "")[:2], bounds, strict=True))
        if not isinstance(least, Real) or float(least) != 0 or not isinstance(most, Real | None):
            return None
        ceiling = math.inf if most is None else float(most)
        return Rectifier(ceiling) if ceiling > 0 else None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x.clamp(0, None if self.ceiling == math.inf else self.ceiling)

    def passes(self, x: torch.Tensor) -> torch.Tensor:
        """Booleans of where it is the identity."""
        return (x > 0) & (x < self.ceiling)

    def lenient(self, targets: torch.Tensor, fitted: torch.Tensor) -> torch.Tensor:
        """Targets of outputs that it reads: the fitted value wherever both lie on the same constant side.

        A target that is not positive becomes the fitted value, but at most 0; one above the ceiling becomes the fitted
        value, but at least the ceiling.
        """
        low = torch.where(targets > 0, targets, fitted.clamp(max=0))
        return (
            low
            if self.ceiling == math.inf
            else torch.where(targets < self.ceiling, low, fitted.clamp(min=self.ceiling))
        )


RELU = Rectifier()
