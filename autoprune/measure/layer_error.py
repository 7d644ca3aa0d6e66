"""The guide `layer`: damage computed layer by layer, without running the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from autoprune.errors import ConfigError
from autoprune.prune.bank.channels import Bank
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.moments.consumers import consumers_of
from autoprune.prune.moments.moments import Moments
from autoprune.prune.moments.refit import seen_weight
from autoprune.prune.surgery.surgery import select


def check_layers(bank: Bank, units: Sequence[str]) -> None:
    """Raises ConfigError naming the units whose consumers all lack statistics, as they have no layer error."""
    told = set(bank.moments)
    blind = [u for u in units if u not in bank.orders or not told & set(consumers_of([bank.structure.unit(u)]))]
    if blind:
        raise ConfigError(
            f"expected every searched unit to have a consumer with statistics for `guide: layer`, {blind} have none "
            "(branches, weights, very wide consumers). Leave them out of the space, or set search.guide to kl or mse."
        )


def layer_error(bank: Bank, subnet: Subnet) -> float:
    """The sum over consumers of the relative squared error of their outputs, each on the dense network's inputs.

    With W a consumer's weights, V its weights after compensation (0 at removed inputs) and H the second moments of its
    inputs, the error of a consumer is tr((W - V) H (W - V)^T) / tr(W H W^T) over the outputs that stay. The sum is 0
    for the dense network. It ignores how an error propagates to later layers.

    Source:
        Dong et al. 2017 (https://arxiv.org/abs/1705.07565, equation 1), the objective of layer-wise pruning. Departure:
        we divide it by the energy of the output, so that errors of layers of different scale can be added.
    """
    indices = subnet.indices
    compensated, tensors = bank.compensated(subnet), named_tensors(bank.model)
    changed = [name for name, moments in bank.moments.items() if moments.design.input_dim in indices.get(name, {})]
    return sum(
        _relative_error(bank.moments[name], indices[name], tensors[name], compensated[name])
        for name in changed
        if name in compensated
    )


def _relative_error(moments: Moments, kept: Mapping[int, np.ndarray], full: torch.Tensor, small: torch.Tensor) -> float:
    outputs = {dim: indices for dim, indices in kept.items() if dim != moments.design.input_dim}
    staying = _placed(select(full, outputs), full, outputs)
    energy = _energy(staying, moments)
    return _energy(staying - _placed(small, full, kept), moments) / energy if energy > 0 else 0.0


def _placed(part: torch.Tensor, full: torch.Tensor, kept: Mapping[int, np.ndarray]) -> torch.Tensor:
    """The kept part of a tensor at its place in the full tensor, with zeros elsewhere."""
    whole = torch.zeros_like(full)
    places = [torch.from_numpy(kept[dim]) if dim in kept else torch.arange(n) for dim, n in enumerate(full.shape)]
    whole[torch.meshgrid(*places, indexing="ij")] = part.to(whole)
    return whole


def _energy(weight: torch.Tensor, moments: Moments) -> float:
    seen = seen_weight(weight, moments)  # (g, o, d)
    return float(((seen @ moments.gram.double()) * seen).sum())
