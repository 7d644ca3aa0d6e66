"""The ridge that makes every second moment invertible, shared by criteria and compensation."""

from __future__ import annotations

import torch

RIDGE = 1e-4  # share of the mean diagonal; with many rows values between 1e-5 and 1e-3 make no difference
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # those that are chosen from on rows that are held out


def strength(gram: torch.Tensor, ridge: float | None = None) -> torch.Tensor:
    """(..., 1) ridges for the diagonals of (..., k, k) second moments; 1 if the moments are zeros.

    `ridge` is a share of the mean diagonal; None for RIDGE.
    """
    share = (RIDGE if ridge is None else ridge) * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1, keepdim=True)
    return torch.where(share > 0, share, 1.0)


def ridged(gram: torch.Tensor, ridge: float | None = None) -> torch.Tensor:
    """(..., k, k) second moments with the ridge on their diagonals; they are positive definite, even if they were 0."""
    return gram + torch.diag_embed(strength(gram, ridge).expand(gram.shape[:-1]))
