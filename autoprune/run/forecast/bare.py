"""Short passes through a network that show what an example takes: time, the inputs of modules, and memory."""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from autoprune.prune.modules.borrowed import evaluating, seeded
from autoprune.prune.moments.sums import tensors_in
from autoprune.prune.passes.containers import copied

FEW = 2  # examples of the pass that shows the inputs of modules
TIMED_SECONDS = 1.0  # as many examples of a batch are timed as take about this long
NOISE_SECONDS = 0.02  # a shorter pass is timed again

Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Read:
    """What a module reads in a pass.

    Attributes:
        x: its first input, on the meta device, of FEW examples at most.
        examples: the number of examples.
        tensor: a number that modules which read the same tensor share.
        calls: the number of its calls.
    """

    x: torch.Tensor
    examples: int
    tensor: int
    calls: int = 1


@dataclass(frozen=True)
class BarePass:
    """What a forward pass takes of one example.

    Attributes:
        seconds: processor seconds on the CPU, and seconds on another device.
        reads: what watched modules read, by name.
        output_bytes: the size of what is kept of the network's output.
    """

    seconds: float
    reads: Mapping[str, Read] = field(default_factory=dict)
    output_bytes: int = 0


def bare_pass(
    network: nn.Module, inputs: Inputs, watched: Collection[str], kept: Callable[[Any], Any] = lambda output: output
) -> BarePass:
    """Runs a network on a few examples of a batch, and then on as many as take about a second, at most on all.

    Args:
        network: the network; it is run in eval mode.
        inputs: a batch.
        watched: the modules whose inputs are noted.
        kept: what is kept of the network's output.
    """
    few = tuple(x[:FEW] for x in inputs)
    with evaluating(network), torch.no_grad(), seeded(0):
        watch = _Watch(network, watched, len(few[0]))
        try:
            first, output = timed(lambda: network(*copied(few)), few[0].device)
        finally:
            watch.close()
        seconds = example_seconds(lambda x: network(*copied(x)), inputs, first / len(few[0]))
    held = sum(x.nbytes for x in tree_leaves(kept(output)) if isinstance(x, torch.Tensor))
    return BarePass(seconds, watch.reads, held // len(few[0]))


def example_seconds(call: Callable[[Inputs], Any], inputs: Inputs, expected: float) -> float:
    """What an example takes where a call runs on as many of a batch as are expected to take about a second."""
    count = max(FEW, int(TIMED_SECONDS / max(expected, 1e-9)))
    batch = tuple(x[:count] for x in inputs)
    return _steady(lambda: call(batch), inputs[0].device) / len(batch[0])


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """What a call takes, in processor seconds on the CPU and in seconds on another device, and its result."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    _finish(device)
    start = clock()
    result = call()
    _finish(device)
    return clock() - start, result


def _steady(call: Callable[[], Any], device: torch.device) -> float:
    """The seconds of a call; of the fastest of three if it is short."""
    seconds = timed(call, device)[0]
    return seconds if seconds > NOISE_SECONDS else min(seconds, *(timed(call, device)[0] for _ in range(2)))


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _Watch:
    """Hooks that note what modules read."""

    def __init__(self, network: nn.Module, names: Collection[str], examples: int) -> None:
        self.reads: dict[str, Read] = {}
        self._examples = examples
        self._tensors: list[weakref.ref[torch.Tensor]] = []
        self._hooks = [
            network.get_submodule(name).register_forward_pre_hook(functools.partial(self._note, name), with_kwargs=True)
            for name in names
        ]

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = next(iter(tensors_in(args, kwargs)), None)
        if x is None:
            return
        calls = self.reads[name].calls + 1 if name in self.reads else 1
        known = next((index for index, other in enumerate(self._tensors) if other() is x), len(self._tensors))
        if known == len(self._tensors):
            self._tensors.append(weakref.ref(x))
        self.reads[name] = Read(torch.empty(x.shape, dtype=x.dtype, device="meta"), self._examples, known, calls)
