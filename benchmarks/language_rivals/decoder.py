"""What stays of a decoder with the modules of a Llama, what that costs, and the network that is cut to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Kept:
    """Which query heads (layers, heads) and neurons (layers, neurons) stay.

    A key-value head goes with the last of its query heads, and a branch with the last of its heads or neurons.
    """

    heads: torch.Tensor
    neurons: torch.Tensor

    def without(self, attention: Sequence[int] = (), mlp: Sequence[int] = ()) -> Kept:
        """What stays without the attention and the MLPs of these layers."""
        heads, neurons = self.heads.clone(), self.neurons.clone()
        heads[list(attention)], neurons[list(mlp)] = False, False
        return Kept(heads, neurons)


def everything(config: Any) -> Kept:
    layers = config.num_hidden_layers
    return Kept(
        torch.ones(layers, config.num_attention_heads, dtype=torch.bool),
        torch.ones(layers, config.intermediate_size, dtype=torch.bool),
    )


def costs(config: Any, kept: Kept, length: int, *, biased: bool = False) -> dict[str, int]:
    """MACs of a sequence and parameters, as autoprune counts them.

    Each query head takes 2 * length * head_dim MACs a token for the products with keys and values, masked or not. The
    embedding is a lookup; the head is counted. `biased` adds a bias to every output projection.
    """
    width, size, layers = config.hidden_size, config.head_dim, config.num_hidden_layers
    heads = int(kept.heads.sum())
    groups = int(kept.heads.view(layers, config.num_key_value_heads, -1).any(dim=2).sum())
    weights = 2 * width * size * (heads + groups) + 3 * width * int(kept.neurons.sum())
    branches = int(kept.heads.any(dim=1).sum() + kept.neurons.any(dim=1).sum())
    embedding = config.vocab_size * width
    biases = 2 * layers * width if biased else 0
    return {
        "macs": length * (weights + 2 * length * size * heads + embedding),
        "params": weights + width * (branches + 1) + biases + embedding * (1 if config.tie_word_embeddings else 2),
    }


def cut(model: nn.Module, kept: Kept) -> nn.Module:
    """A copy of the model in which what goes has zeros in the output projections."""
    network = copy.deepcopy(model)
    for module, mask in zip(projections(network), input_masks(model, kept), strict=True):
        module.weight.data *= mask
    return network


def input_masks(model: nn.Module, kept: Kept) -> list[torch.Tensor]:
    """For each output projection which of its inputs stay."""
    size = model.config.head_dim
    pairs = zip(kept.heads, kept.neurons, strict=True)
    return [mask for heads, neurons in pairs for mask in (heads.repeat_interleave(size), neurons)]


def projections(model: nn.Module) -> list[nn.Linear]:
    """The output projections of all branches, in the order in which they run."""
    return [part for layer in model.model.layers for part in (layer.self_attn.o_proj, layer.mlp.down_proj)]


@contextmanager
def reading(modules: Sequence[nn.Module], read: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Calls `read` with the number of a module and its input, whenever one of the modules runs."""

    def hook(number: int) -> Callable[..., None]:
        return lambda module, inputs: read(number, inputs[0])

    handles = [module.register_forward_pre_hook(hook(number)) for number, module in enumerate(modules)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def streams(model: nn.Module, batches: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The (tokens, width) residual stream before every layer, and after the last one."""
    borders = [*model.model.layers, model.model.norm]
    rows: list[list[torch.Tensor]] = [[] for _ in borders]
    with reading(borders, lambda number, x: rows[number].append(x.flatten(0, 1))):
        for batch in batches:
            model.model(batch)
    return [torch.cat(parts) for parts in rows]


@torch.no_grad()
def arguments(model: nn.Module, batch: torch.Tensor) -> dict[str, Any]:
    """What the model passes to each of its layers beside the stream, for sequences as long as the batch's."""
    found: dict[str, Any] = {}
    first = model.model.layers[0]
    handle = first.register_forward_pre_hook(lambda module, inputs, given: found.update(given), with_kwargs=True)
    try:
        model.model(batch[:1])
    finally:
        handle.remove()
    return found
