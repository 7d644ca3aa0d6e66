"""Zeros of sparse weights, which stay zeros while a network is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.prune.modules.copying import named_tensors


@dataclass(frozen=True, eq=False)
class KeptZeros:
    """The nonzero entries of sparse weights, by name; the other entries stay zero."""

    masks: Mapping[str, torch.Tensor]

    @staticmethod
    def of(network: nn.Module, sparse: Collection[str]) -> KeptZeros:
        """The zeros that the named weights have now. Names that the network lacks are ignored."""
        tensors = named_tensors(network)
        return KeptZeros({name: tensors[name].detach() != 0 for name in sparse if name in tensors})

    @torch.no_grad()
    def restore(self, network: nn.Module) -> None:
        """Sets the entries to zero again after a step."""
        for name, mask in self.masks.items():
            network.get_parameter(name).mul_(mask)


def sparse_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the weights, of two dimensions or more, that have an entry of exactly zero."""
    return tuple(name for name, weight in network.named_parameters() if weight.dim() > 1 and bool((weight == 0).any()))
