"""A network in training with the part of it that is trained: all parameters, some of them, or adapters."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from autoprune.errors import ConfigError
from autoprune.prune.modules.borrowed import evaluating, training
from autoprune.prune.modules.copies import copy_model
from autoprune.train.recovery.adapters import Adapters
from autoprune.train.recovery.features import feature_site
from autoprune.train.recovery.options import Recovery
from autoprune.train.zeros import KeptZeros, sparse_names


class Trained(nn.Module):
    """A copy of a network, and its adapters if there are any, whose parameters outside the trained part are frozen.

    Args:
        network: the network, which is not changed.
        options: the options; `train` says what is trained.
        sparse: names of weights whose zeros stay zeros.
        inputs: the inputs of an example, with which the last layer is found.
    """

    def __init__(
        self, network: nn.Module, options: Recovery, sparse: Collection[str], inputs: Sequence[torch.Tensor]
    ) -> None:
        super().__init__()
        if callable(options.train):
            raise ConfigError("train: expected a part of the network to train, got a function, which trains by itself.")
        self._flags = {name: parameter.requires_grad for name, parameter in network.named_parameters()}
        self._part = options.train
        self.network = copy_model(network)
        self.adapters: Adapters | None = None
        self._zeros = KeptZeros.of(self.network, sparse)
        if options.train in ("lora", "mask_lora"):
            masked = {*sparse, *(sparse_names(network) if options.train == "mask_lora" else ())}
            self.adapters = Adapters(self.network, options.rank, options.alpha, masked, options.seed)
            self.network.requires_grad_(False)
        elif options.train == "norms_biases":
            self._freeze(name for name, parameter in self.network.named_parameters() if parameter.dim() > 1)
        elif options.train == "head":
            head = feature_site(self.network, inputs).layer
            self._freeze(name for name in self._flags if name.rpartition(".")[0] != head)

    def forward(self, *inputs: torch.Tensor) -> Any:
        """The output of the network with its adapters."""
        if self.adapters is None:
            return self.network(*inputs)
        return functional_call(self.network, self.adapters.weights(self.network), inputs)

    def in_training(self) -> contextlib.AbstractContextManager[None]:
        """Puts the network into train mode inside, or into eval mode if only its last layer is trained."""
        return evaluating(self) if self._part == "head" else training(self)

    def restore_zeros(self) -> None:
        """Sets zeros of sparse weights to zero again after a step."""
        self._zeros.restore(self.network)

    def plain(self, tensors: dict[str, torch.Tensor] | None = None) -> nn.Module:
        """A copy of the network in eval mode with merged adapters; `tensors` replace those of this module by name."""
        copy = copy_model(self, tensors or {})
        assert isinstance(copy, Trained)
        if copy.adapters is not None:
            copy.adapters.merge(copy.network)
        return self.unfrozen(copy.network)

    def unfrozen(self, network: nn.Module) -> nn.Module:
        """The network in eval mode, whose parameters require gradients as those of the network that was given did."""
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(self._flags[name])
        return network.eval()

    def _freeze(self, names: Any) -> None:
        for name in list(names):
            self.network.get_parameter(name).requires_grad_(False)
