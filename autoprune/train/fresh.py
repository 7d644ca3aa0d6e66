"""Networks with new random weights, to see what the weights of a pruned network are worth."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from autoprune.errors import ConfigError
from autoprune.prune.modules.borrowed import seeded
from autoprune.prune.modules.copies import copy_model


def reinitialised(network: nn.Module, sparse: Collection[str], seed: int) -> nn.Module:
    """A copy of a network with new random weights, by the `reset_parameters` of its modules.

    Zeros of the sparse weights stay zeros.

    Raises:
        ConfigError: a module with parameters has no `reset_parameters`.
    """
    fresh = copy_model(network)
    with seeded(seed):
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
            elif [*module.parameters(recurse=False)]:
                raise ConfigError(
                    f"expected modules with `reset_parameters` to train a network from new random weights, "
                    f"{name or 'the network'} ({type(module).__name__}) has parameters and no such method. Give its "
                    "class one, or leave out the comparison with new random weights."
                )
    for name in sparse:
        parameter = fresh.get_parameter(name)
        parameter.data.mul_(network.get_parameter(name) != 0)
    return fresh
