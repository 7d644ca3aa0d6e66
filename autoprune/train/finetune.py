"""How networks are fine-tuned: the steps, their rate and what they lower."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from autoprune.errors import ConfigError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import MEASURES
from autoprune.prune.passes.containers import main_output

Loss = Callable[[Any, Batch], torch.Tensor]  # (output of the network, batch) -> its mean over the batch

LOSSES = {"kl": MEASURES["kl"], "mse": MEASURES["mse"], "cross_entropy": MEASURES["loss"]}  # summed over examples
COMPARING = ("kl", "mse")  # with the dense network's outputs
TINY = 1e-9  # a product of a share and a count may lie above the count that is meant


@dataclass(frozen=True)
class FineTune:
    """How every network but the dense one is trained: `steps` of SGD with momentum, at a constant rate `lr`.

    A schedule that ends at `steps` would not do: the first steps of a longer training would differ from a shorter one.
    `loss` is "kl" or "mse" to the dense network's outputs, "cross_entropy" with the targets, each the mean of what the
    fitness of that name measures, or a function (output, batch) -> scalar tensor. Where a network returns several
    tensors in train mode, as for auxiliary heads, the named ones are about the first.

    Raises ConfigError, with all that is wrong.
    """

    steps: int
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    loss: str | Loss = "kl"

    def __post_init__(self) -> None:
        rules = [
            (self.steps >= 1, f"finetune.steps: expected at least 1, got {self.steps}"),
            (0 < self.lr < math.inf, f"finetune.lr: expected a finite number above 0, got {self.lr}"),
            (0 <= self.momentum < 1, f"finetune.momentum: expected at least 0 and below 1, got {self.momentum}"),
            (
                0 <= self.weight_decay < math.inf,
                f"finetune.weight_decay: expected a finite number of at least 0, got {self.weight_decay}",
            ),
            (
                callable(self.loss) or self.loss in LOSSES,
                f"finetune.loss: expected one of {', '.join(LOSSES)} or a function of (output, batch), "
                f"got {self.loss!r}",
            ),
        ]
        if problems := [f"{sentence}." for kept, sentence in rules if not kept]:
            raise ConfigError(problems)

    def steps_at(self, fidelity: float) -> int:
        """How many steps are a share of all, rounded up."""
        return math.ceil(fidelity * self.steps - TINY)

    def loss_of(self, output: Any, batch: Batch) -> torch.Tensor:
        """What a step lowers; PluginError where it is none for this output."""
        if callable(self.loss):
            value = self.loss(output, batch)
            if not isinstance(value, torch.Tensor) or value.numel() != 1 or not value.requires_grad:
                raise PluginError(f"expected finetune.loss to return a scalar tensor with a gradient, got {value!r}")
            return value
        main = main_output(output)
        if not isinstance(main, torch.Tensor) or (self.loss != "mse" and main.dim() != 2):
            shown = tuple(main.shape) if isinstance(main, torch.Tensor) else type(output).__name__
            raise PluginError(
                f"finetune.loss: {self.loss} expects the first tensor that a network returns to be (b, classes) logits "
                f"in train mode, got {shown}. Take mse for other tensors, or a function of (output, batch)."
            )
        if self.loss in COMPARING and batch.dense is not None and batch.dense.shape != main.shape:
            raise PluginError(
                f"finetune.loss: {self.loss} expects the first tensor that the network returns in train mode to have "
                f"the shape of its output in eval mode, {tuple(batch.dense.shape)}, got {tuple(main.shape)}. Give a "
                "function of (output, batch)."
            )
        return LOSSES[self.loss](main, batch) / batch.examples
