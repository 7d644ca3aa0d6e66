"""Biases for linear layers that have none, which take up what removed inputs contributed on average."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from autoprune.errors import ConfigError

Biases = Literal["configured", "all", "none"]
SWITCHES = ("attention_bias", "mlp_bias")  # settings of configurations that give layers a bias


def add_biases(network: nn.Module, which: Biases = "configured") -> nn.Module:
    """Gives linear layers without a bias one that is zero, so that the network computes what it did.

    The least squares of a layer with a bias are about the means of its inputs and its outputs. So the layer keeps the
    average contribution of the inputs that it loses.

    Args:
        network: a network of transformers, which is changed, as is its configuration.
        which: "configured" for the layers that have a bias in the network's class if its configuration says so, by
            `attention_bias` and `mlp_bias`, so that the class can read the checkpoint; "all" for all linear layers but
            the one that predicts tokens; "none".

    Returns:
        The network.

    Raises:
        ConfigError: `which` is not one of these.

    Source:
        FLAP (An et al. 2023, https://arxiv.org/abs/2312.11983, equation 6). Departure: the weights that stay are
        solved for together with the bias.
    """
    if which not in ("configured", "all", "none"):
        raise ConfigError(f"expected biases configured, all or none, got {which!r}")
    if which == "none":
        return network
    for name in _configured(network) if which == "configured" else list(_linear(network)):
        module = network.get_submodule(name)
        weight = module.get_parameter("weight")
        module.register_parameter("bias", nn.Parameter(weight.new_zeros(len(weight))))
    return network


def _configured(network: Any) -> list[str]:
    """The linear layers that get a bias when the switches of the configuration are on, which are then on."""
    config = copy.deepcopy(network.config)
    switches = [name for name in SWITCHES if getattr(config, name, None) is False]
    for name in switches:
        setattr(config, name, True)
    biased = _parameters_of(type(network), config) if switches else set()
    names = [name for name in _linear(network) if f"{name}.bias" in biased]
    for name in switches if names else ():
        setattr(network.config, name, True)
    return names


def _parameters_of(kind: Any, config: Any) -> set[str]:
    """The names of the parameters of a class with a configuration; empty if it does not take it."""
    try:
        with torch.device("meta"):
            return {name for name, _ in kind(config).named_parameters()}
    except Exception:  # a class may raise anything for a configuration that it was not made for
        return set()


def _linear(network: Any) -> Iterator[str]:
    """The linear layers without a bias, but for the one that predicts tokens."""
    head = network.get_output_embeddings()
    for name, module in network.named_modules():
        if type(module) is nn.Linear and module.bias is None and module is not head:
            yield name
