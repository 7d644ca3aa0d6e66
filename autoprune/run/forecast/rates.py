"""How fast a device multiplies, factors and moves numbers: timed once for each device and number of threads."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from autoprune.prune.devices.precision import precise_dtype
from autoprune.run.forecast.bare import timed

ROWS, COLUMNS = 2048, 256  # of the matrices that are timed


@dataclass(frozen=True)
class Rates:
    """Seconds for one unit of work; processor seconds on the CPU.

    Attributes:
        single: a multiplication within a float32 matrix product.
        double: the same in float64.
        factor: a multiplication within a Cholesky factor and an inverse in float64.
        move: copying one float32 number from any place.
    """

    single: float
    double: float
    factor: float
    move: float

    def products(self, macs: float, dtype: torch.dtype = torch.float32) -> float:
        """The seconds of matrix products with so many multiplications."""
        return macs * (self.double if dtype == torch.float64 else self.single)


@functools.cache
def rates(device: torch.device, threads: int) -> Rates:
    """The rates of a device with so many threads, which torch has now."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(ROWS, COLUMNS, generator=generator).to(device)
    double = rows.to(precise_dtype(device))
    square = (double.T @ double).cpu()
    index = torch.randint(ROWS, (ROWS,), generator=generator).to(device)
    on_cpu = torch.device("cpu")
    macs = ROWS * COLUMNS**2
    return Rates(
        _fastest(lambda: rows.T @ rows, device) / macs,
        _fastest(lambda: double.T @ double, device) / macs,
        _fastest(lambda: torch.cholesky_inverse(torch.linalg.cholesky(square.double())), on_cpu) / (COLUMNS**3 / 2),
        _fastest(lambda: rows[index].add_(1), device) / rows.numel(),
    )


def _fastest(call: Callable[[], Any], device: torch.device) -> float:
    return min(timed(call, device)[0] for _ in range(3))
