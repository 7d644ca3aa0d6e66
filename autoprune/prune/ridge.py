"""The ridge that makes every second moment invertible, the same for order and compensation."""

from __future__ import annotations

import torch

RIDGE = 1e-4  # of the mean diagonal; between 1e-5 and 1e-3 it makes no difference


def ridged(gram: torch.Tensor) -> torch.Tensor:
    """The second moments with RIDGE of their mean diagonal added to the diagonal; positive definite also for zeros."""
    strength = RIDGE * float(gram.diagonal().mean())
    return gram + (strength if strength > 0 else 1.0) * torch.eye(len(gram), dtype=gram.dtype)
