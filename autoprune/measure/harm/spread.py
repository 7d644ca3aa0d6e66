"""The spread of each layer's outputs beside the dense network's: sums of fewer terms may collapse to a constant."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from autoprune.measure.batch import Batch
from autoprune.prune.modules.borrowed import evaluating, on_copies, seeded

COLLAPSED = 0.5  # a spread below this share of the dense network's is flagged

Channels = Mapping[str, torch.Tensor]  # by module: one value for each channel


def spreads(network: nn.Module, batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """(c,) The variance of each output channel over examples and positions, by the name of the convolution or linear
    layer.
    """
    sums: dict[str, list[torch.Tensor]] = {}
    with evaluating(network), on_copies(network), torch.no_grad(), seeded(0), _watched(network, sums):
        for batch in batches:
            network(*batch.inputs)
    found = {}
    for name, parts in sums.items():
        count, total, square = torch.stack(parts).sum(dim=0).unbind(dim=0)  # (3, c)
        found[name] = (square / count - (total / count).square()).clamp_min(0)
    return found


def spread_ratios(pruned: Channels, dense: Channels, kept: Mapping[str, Any]) -> dict[str, float]:
    """The deviation of each layer's outputs as a share of that of the dense network's same channels.

    Args:
        pruned: the variances in the pruned network.
        dense: those in the dense network.
        kept: the channels that are kept of a layer, by its name; a missing layer keeps all.

    Returns:
        The shares by layer, without layers whose channels cannot be compared or are constant in the dense network.
    """
    ratios = {}
    for name, own in pruned.items():
        whole = dense.get(name)
        if whole is None:
            continue
        whole = whole[torch.as_tensor(kept[name], device=whole.device)] if name in kept else whole
        if len(whole) == len(own) and float(whole.sum()) > 0:
            ratios[name] = float((own.mean() / whole.mean()).sqrt())
    return ratios


@contextlib.contextmanager
def _watched(network: nn.Module, sums: dict[str, list[torch.Tensor]]) -> Iterator[None]:
    """Adds up counts, sums and squares of every output channel inside the context."""
    handles = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            handles.append(module.register_forward_hook(_adder(sums.setdefault(name, []), module)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _adder(parts: list[torch.Tensor], module: nn.Module) -> Any:
    channels = -1 if isinstance(module, nn.Linear) else -1 - len(module.kernel_size)  # type: ignore[arg-type]

    def add(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        values = output.movedim(channels, 0).flatten(1).float()  # (c, n)
        count = torch.full_like(values[:, 0], values.shape[1])
        parts.append(torch.stack([count, values.sum(dim=1), values.square().sum(dim=1)]))

    return add
