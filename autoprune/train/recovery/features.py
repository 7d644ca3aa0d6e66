"""The features of a network: the input of its last layer, before global pooling where the network has one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.passes.containers import copied

_POOLINGS = ("mean", "adaptive_avg_pool", "avg_pool", "adaptive_max_pool", "max_pool", "amax")
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class FeatureSite:
    """Where the features of a network are: the name of its last layer, and whether global pooling is before it."""

    layer: str
    pooled: bool


@dataclass
class Recorded:
    """The features of the last pass; None before there was one."""

    features: torch.Tensor | None = None


def feature_site(network: nn.Module, inputs: Sequence[torch.Tensor]) -> FeatureSite:
    """Finds the last layer, and whether its input is the result of a pooling over all positions.

    Raises:
        UnsupportedModel: the network runs no linear layer and no convolution.
    """
    ran: list[tuple[str, torch.Tensor]] = []
    poolings = _Poolings()

    def enter(name: str) -> Any:
        return lambda module, args: ran.append((name, args[0])) if args else None

    with contextlib.ExitStack() as stack:
        for name, module in network.named_modules():
            if isinstance(module, _LAYERS):
                stack.callback(module.register_forward_pre_hook(enter(name)).remove)
        stack.enter_context(evaluating(network))
        stack.enter_context(torch.no_grad())
        stack.enter_context(poolings)
        network(*copied(tuple(inputs)))
    if not ran:
        raise UnsupportedModel(
            f"loss mimic: expected a network with a linear layer or a convolution as its last layer, got a "
            f"{type(network).__name__} that runs none. Take kl or a function of (output, batch)."
        )
    layer, found = ran[-1]
    pooled = poolings.output is not None and torch.equal(poolings.output.flatten(), found.flatten())
    return FeatureSite(layer, pooled)


@contextlib.contextmanager
def recording(network: nn.Module, site: FeatureSite) -> Iterator[Recorded]:
    """Records the features of every pass of a network inside."""
    recorded, poolings = Recorded(), _Poolings()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        recorded.features = poolings.input if site.pooled else args[0]

    handle = network.get_submodule(site.layer).register_forward_pre_hook(enter)
    try:
        with poolings if site.pooled else contextlib.nullcontext():
            yield recorded
    finally:
        handle.remove()


@dataclass
class _Poolings(TorchFunctionMode):
    """Notes the input and output of the last pooling over all positions of each example."""

    input: torch.Tensor | None = field(default=None, init=False)
    output: torch.Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = args[0] if args else (kwargs or {}).get("input")
        if name.startswith(_POOLINGS) and isinstance(given, torch.Tensor) and isinstance(output, torch.Tensor):
            self._note(given, output)
        return output

    def _note(self, given: torch.Tensor, output: torch.Tensor) -> None:
        """Keeps a pooling of (b, c, ...) or (b, ..., c) positions to c values for each example."""
        channels = output.numel() // max(1, len(given)) if given.dim() > 2 else 0
        if channels in (given.shape[1:2] + given.shape[-1:] if channels else ()) and output.numel() < given.numel():
            self.input, self.output = given, output
