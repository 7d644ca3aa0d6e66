"""Moments of the inputs of output projections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from language_rivals.decoder import projections, reading


@dataclass
class Moments:
    """Sums over tokens of an input x with k columns.

    Attributes:
        count: the number of tokens.
        total: the (k,) sums of x.
        square: the (k, k) sums of x x'.
        norms: the (k,) sums over sequences of the norm of each column.
        sequences: the number of sequences.
    """

    count: int
    total: torch.Tensor
    square: torch.Tensor
    norms: torch.Tensor
    sequences: int

    @classmethod
    def none(cls, columns: int) -> Moments:
        zeros = torch.zeros(columns, dtype=torch.float64)
        return cls(0, zeros.clone(), torch.zeros(columns, columns, dtype=torch.float64), zeros.clone(), 0)

    def add(self, x: torch.Tensor) -> None:
        """Adds (sequences, tokens, k) inputs."""
        rows = x.flatten(0, 1)
        self.count += len(rows)
        self.total += rows.sum(dim=0)
        self.square += rows.T @ rows
        self.norms += x.norm(dim=1).sum(dim=0)
        self.sequences += len(x)

    @property
    def mean(self) -> torch.Tensor:
        return self.total / self.count

    @property
    def norm(self) -> torch.Tensor:
        """The norm of each column over all tokens."""
        return self.square.diagonal().sqrt()

    @property
    def variance(self) -> torch.Tensor:
        return self.square.diagonal() / self.count - self.mean**2


@torch.no_grad()
def output_moments(model: nn.Module, batches: Sequence[torch.Tensor]) -> list[Moments]:
    """The moments of the inputs of all output projections (decoder.projections)."""
    modules = projections(model)
    moments = [Moments.none(module.in_features) for module in modules]
    with reading(modules, lambda number, x: moments[number].add(x)):
        for batch in batches:
            model.model(batch)
    return moments
