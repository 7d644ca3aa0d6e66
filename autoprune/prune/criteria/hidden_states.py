"""Distances between hidden states before and after the blocks of a network."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from autoprune.core.problem import BlockDistances
from autoprune.errors import ConfigError
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.passes.containers import copied, tensors_of

Inputs = tuple[torch.Tensor, ...]
Border = list[torch.Tensor]  # the hidden states that enter a block, or leave it, call by call


def block_distances(model: nn.Module, blocks: Sequence[str], batches: Sequence[Inputs]) -> BlockDistances:
    """Measures how much blocks change hidden states, in one pass of the dense network.

    Hidden states are (examples, tokens, width); others are compared as a whole, as those of one token.

    Args:
        model: the dense network.
        blocks: names of its blocks, in the order in which they run, each of which takes the output of the one before.
        batches: inputs of the model.

    Raises:
        ConfigError: a block does not run exactly once, or its input and output differ in shape.
    """
    influence: list[torch.Tensor] = []
    angles: list[torch.Tensor] = []
    with evaluating(model), torch.no_grad():
        for inputs in batches:
            with _watched(model, blocks) as (entered, left):
                model(*copied(inputs))
            _check(blocks, entered, left)
            states = [border[0] for border in (*entered, left[-1])]
            pairs = zip(entered, left, strict=True)
            influence.append(torch.stack([1 - _cosine(x[0], y[0]) for x, y in pairs], dim=1))  # (tokens, b)
            ends = torch.stack([state[:, -1] for state in states])  # (b + 1, examples, width)
            cosine = functional.cosine_similarity(ends[:, None], ends[None], dim=-1).clamp(-1, 1)
            angles.append(cosine.double().acos().movedim(-1, 0) / torch.pi)
    return BlockDistances(torch.cat(influence).mean(dim=0).numpy(), torch.cat(angles).mean(dim=0).numpy())


def _cosine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(tokens,) cosines of the angles between hidden states."""
    return functional.cosine_similarity(x, y, dim=-1).double().flatten()


@contextlib.contextmanager
def _watched(model: nn.Module, blocks: Sequence[str]) -> Iterator[tuple[list[Border], list[Border]]]:
    """Collects the hidden states that enter and leave each block, in float32 on the CPU."""
    entered: list[Border] = [[] for _ in blocks]
    left: list[Border] = [[] for _ in blocks]
    with contextlib.ExitStack() as stack:
        for name, before, after in zip(blocks, entered, left, strict=True):
            module = model.get_submodule(name)
            enter, leave = functools.partial(_enter, before), functools.partial(_leave, after)
            stack.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(leave).remove)
        yield entered, left


def _enter(before: Border, module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    before.append(_state((args, named)))


def _leave(after: Border, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    after.append(_state(output))


def _state(values: Any) -> torch.Tensor:
    """(examples, tokens, width) the first tensor of some values."""
    state = next(iter(tensors_of(values))).detach().float().cpu()
    return state if state.dim() == 3 else state.flatten(1)[:, None]


def _check(blocks: Sequence[str], entered: Sequence[Border], left: Sequence[Border]) -> None:
    for name, before, after in zip(blocks, entered, left, strict=True):
        shapes = [tuple(state.shape) for state in (*before, *after)]
        if len(before) != 1 or len(after) != 1 or len(set(shapes)) != 1 or shapes[0] != tuple(entered[0][0].shape):
            raise ConfigError(
                "expected every block to run once in a pass, and to return a tensor of the shape that enters the first "
                f"block, got {len(before)} runs of {name!r} with shapes {shapes}. Order blocks by `loss` instead."
            )
