"""Low-rank adapters of weights, which are merged into the network after training."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.prune.modules.borrowed import seeded

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Adapters(nn.Module):
    """Adds s B A to the weights of linear layers and convolutions, with s = alpha / rank, and B = 0 at the start.

    Where a weight is masked, the sum is added to its nonzero entries only, so that zeros stay zeros.

    Args:
        network: the network whose weights are adapted; they do not change until `merge`.
        rank: the rank of B A, at most the least side of a weight.
        alpha: the factor of s.
        masked: names of the weights whose zeros stay.
        seed: the seed of A.

    Raises:
        ConfigError: the network has no linear layer and no convolution.

    Source:
        Hu and others, LoRA: Low-Rank Adaptation of Large Language Models, 2022, equation 3; for masked weights Zimmer
        and others, PERP: Rethinking the Prune-Retrain Paradigm, 2023, MaskLoRA. A weight of a convolution is taken as
        a matrix with a row for each output.
    """

    def __init__(self, network: nn.Module, rank: int, alpha: float, masked: Collection[str], seed: int) -> None:
        super().__init__()
        layers = {name: module for name, module in network.named_modules() if isinstance(module, _LAYERS)}
        weights = {f"{name}.weight" if name else "weight": layer.weight for name, layer in layers.items()}
        if not weights:
            raise ConfigError(
                "recover.train: expected a network with linear layers or convolutions for lora, got none. Take all or "
                "norms_biases."
            )
        self._names = tuple(weights)
        self._scales = tuple(alpha / min(rank, *matrix(weight).shape) for weight in weights.values())
        with seeded(seed):
            self.a = nn.ParameterList(_first(weight, rank) for weight in weights.values())
        self.b = nn.ParameterList(_second(weight, rank) for weight in weights.values())
        self._masks = {name: weights[name].detach() != 0 for name in masked if name in weights}

    def weights(self, network: nn.Module) -> dict[str, torch.Tensor]:
        """The adapted weights of a network by name, which depend on the adapters differentiably."""
        found = {}
        for name, scale, a, b in zip(self._names, self._scales, self.a, self.b, strict=True):
            weight = network.get_parameter(name)
            added = (scale * (b @ a)).view_as(weight)
            found[name] = weight + (added * self._masks[name] if name in self._masks else added)
        return found

    @torch.no_grad()
    def merge(self, network: nn.Module) -> None:
        """Replaces the weights of the network by the adapted ones."""
        for name, weight in self.weights(network).items():
            network.get_parameter(name).copy_(weight)


def matrix(weight: torch.Tensor) -> torch.Tensor:
    """The weight as a matrix with a row for each output."""
    return weight.flatten(1)


def _first(weight: torch.Tensor, rank: int) -> nn.Parameter:
    """A, (rank, inputs): uniform, of the variance of a new linear layer."""
    flat = matrix(weight.detach())
    bound = 1 / math.sqrt(flat.shape[1])
    return nn.Parameter(torch.empty(min(rank, *flat.shape), flat.shape[1]).uniform_(-bound, bound).to(flat))


def _second(weight: torch.Tensor, rank: int) -> nn.Parameter:
    """B, (outputs, rank): zeros."""
    flat = matrix(weight.detach())
    return nn.Parameter(flat.new_zeros(flat.shape[0], min(rank, *flat.shape)))
