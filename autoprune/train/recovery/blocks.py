"""The outputs of the residual blocks of a network and of the dense one, at the positions that both have."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from autoprune.errors import PluginError
from autoprune.prune.passes.containers import main_output

Indices = Mapping[str, Mapping[int, np.ndarray]]  # tensor name -> dimension -> positions that the network keeps

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def block_names(network: nn.Module) -> list[str]:
    """The names of the blocks: the outermost modules with submodules whose class occurs more than once."""
    counts = Counter(type(module) for module in network.modules())

    def within(module: nn.Module, prefix: str) -> Iterator[str]:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            repeated = counts[type(child)] > 1 and type(child) not in _CONTAINERS
            if repeated and any(True for _ in child.children()):
                yield path
            else:
                yield from within(child, f"{path}.")

    return list(within(network, ""))


@contextlib.contextmanager
def block_outputs(network: nn.Module, names: list[str]) -> Iterator[dict[str, torch.Tensor]]:
    """Records the first tensor that each of the named modules returns inside, by name."""
    found: dict[str, torch.Tensor] = {}

    def leave(name: str) -> Callable[[nn.Module, object, object], None]:
        def note(module: nn.Module, args: object, output: object) -> None:
            tensor = main_output(output)
            if isinstance(tensor, torch.Tensor):
                found[name] = tensor

        return note

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.callback(network.get_submodule(name).register_forward_hook(leave(name)).remove)
        yield found


def with_features(
    task: torch.Tensor, own: Mapping[str, torch.Tensor], dense: Mapping[str, torch.Tensor], kept: Indices
) -> torch.Tensor:
    """Adds to a loss the mean squared differences of block outputs, each weighted to have the value of the loss.

    The weight of a block is sg(loss) / sg(difference), computed anew in every step, where sg stops gradients, so that
    no block dominates and the scale of features does not matter. Blocks without a difference add nothing.

    Raises:
        PluginError: no block can be compared.

    Source:
        Zhang and others, LAPTOP-Diff, 2024, normalised feature distillation; the abstract has no formula, this one is
        ours.
    """
    terms = []
    for name in own.keys() & dense.keys():
        target = _at_kept(name, own[name], dense[name], kept)
        if target is not None:
            terms.append(functional.mse_loss(own[name].float(), target.float()))
    if not terms:
        raise PluginError(
            "recover.features: expected blocks whose outputs have positions in common with the dense network's, got "
            f"none among {sorted(own)[:3]}. Set it to false, or take the loss mimic."
        )
    weights = [torch.where(term > 0, task / term, 0.0).detach() for term in terms]
    return task + torch.stack([weight * term for weight, term in zip(weights, terms, strict=True)]).sum()


def _at_kept(name: str, own: torch.Tensor, dense: torch.Tensor, kept: Indices) -> torch.Tensor | None:
    """The dense network's output at the positions that the network keeps; None if these are not known.

    The positions are those along the outputs of layers in the block with the widths of both outputs; the block is left
    out if such layers keep different ones.
    """
    if own.shape == dense.shape:
        return dense
    differing = [dim for dim, (few, many) in enumerate(zip(own.shape, dense.shape, strict=False)) if few != many]
    if own.dim() != dense.dim() or len(differing) != 1:
        return None
    dim = differing[0]
    within = [dims[0] for tensor, dims in kept.items() if tensor.startswith(f"{name}.") and 0 in dims]
    fitting = [found for found in within if len(found) == own.shape[dim] and found.max() < dense.shape[dim]]
    if not fitting or any(not np.array_equal(found, fitting[0]) for found in fitting):
        return None
    return dense.index_select(dim, torch.as_tensor(fitting[0], device=dense.device))
