"""The optimizers of trainings."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from autoprune.errors import ConfigError


class OptimizerOptions(Protocol):
    """The options of a training that its optimizer has."""

    @property
    def optimizer(self) -> str:
        """The optimizer: sgd or adamw."""

    @property
    def lr(self) -> float:
        """The highest learning rate."""

    @property
    def momentum(self) -> float:
        """The momentum of sgd."""

    @property
    def weight_decay(self) -> float:
        """The weight decay of weights."""


def trained_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def make_optimizer(network: nn.Module, options: OptimizerOptions) -> torch.optim.Optimizer:
    """The optimizer, in which norms and biases, the parameters of one dimension, do not decay.

    Raises:
        ConfigError: no parameter requires a gradient.
    """
    trained = trained_parameters(network)
    if not trained:
        raise ConfigError(
            "expected a network with parameters to train, got none that requires a gradient. Call "
            "network.requires_grad_(True)."
        )
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=options.lr, momentum=options.momentum)
    return torch.optim.AdamW(groups, lr=options.lr)
