"""The ridge that makes every second moment invertible, shared by criteria and compensation."""

from __future__ import annotations

import torch

RIDGE = 1e-4  # share of the mean diagonal; between 1e-5 and 1e-3 it makes no difference


def strength(gram: torch.Tensor) -> torch.Tensor:
    """(..., 1) the ridge on the diagonals of (..., k, k) second moments; 1 if these are zeros."""
    share = RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1, keepdim=True)
    return torch.where(share > 0, share, 1.0)


def ridged(gram: torch.Tensor) -> torch.Tensor:
    """(..., k, k) second moments with the ridge on their diagonals; positive definite also for zeros."""
    return gram + torch.diag_embed(strength(gram).expand(gram.shape[:-1]))
