"""Float64 on devices that have it, and on the CPU for those that do not, such as mps."""

from __future__ import annotations

import torch


def has_float64(device: torch.device) -> bool:
    """Whether a device has float64, which linear solvers on it are taken to need as well."""
    return device.type != "mps"


def precise_dtype(device: torch.device) -> torch.dtype:
    """The most precise dtype for tensors that stay on a device."""
    return torch.float64 if has_float64(device) else torch.float32


def solvable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor where systems of equations are solved: on its own device if that has float64, else on the CPU."""
    return tensor if has_float64(tensor.device) else tensor.cpu()


def doubled(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float64, on its own device if that has float64, else on the CPU."""
    return solvable(tensor).double()


class PreciseSum:
    """A running sum of float32 tensors of one shape, on their device.

    It is in float64, or, where there is none, in two float32 parts of which the second one has what the first one has
    lost by rounding (Neumaier 1974, https://doi.org/10.1002/zamm.19740540106, in the branch-free form of Knuth, The Art
    of Computer Programming, volume 2, section 4.2.2, theorem B).
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self._total = torch.zeros(shape, dtype=precise_dtype(device), device=device)
        self._lost = None if has_float64(device) else torch.zeros_like(self._total)

    def add(self, values: torch.Tensor) -> None:
        """Adds values to the sum."""
        if self._lost is None:
            self._total += values.double()
            return
        total = self._total + values
        kept = total - values
        self._lost += (self._total - kept) + (values - (total - kept))
        self._total = total

    def value(self) -> torch.Tensor:
        """The sum in float64 on the CPU."""
        total = self._total.cpu().double()
        return total if self._lost is None else total + self._lost.cpu().double()
