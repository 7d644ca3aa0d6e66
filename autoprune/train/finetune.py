"""The options of fine-tuning: the number of steps, the learning rate and the loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autoprune.errors import ConfigError, PluginError
from autoprune.measure.batch import Batch
from autoprune.measure.outputs import MEASURES
from autoprune.prune.modules.borrowed import repeatable, seeded, training
from autoprune.prune.passes.containers import main_output
from autoprune.train.optimizers import trained_parameters

Loss = Callable[[Any, Batch], torch.Tensor]  # (output of the network, batch) -> mean loss over the batch

LOSSES = {"kl": MEASURES["kl"], "mse": MEASURES["mse"], "cross_entropy": MEASURES["loss"]}  # summed over examples
COMPARING = ("kl", "mse")  # losses that compare with the dense network's outputs
SHARE_ROUNDING = 1e-9  # rounding may put the product of a share and a count slightly above the intended count


@dataclass(frozen=True)
class FineTune:
    """Fine-tunes every network except the dense one, with SGD with momentum.

    A fifth of the training examples is held out, at most 500. Where the loss on them does not fall, the training goes
    back to the best network so far and on with a third of the rate and fixed batch norm statistics (train/learner.py).
    No schedule ends at `steps`, so that a short training is the beginning of a longer one.

    Args:
        steps: number of steps.
        lr: highest learning rate.
        momentum: momentum of SGD.
        weight_decay: weight decay of SGD.
        loss: "kl" or "mse" compares with the dense network's outputs, "cross_entropy" with the targets; each is the
            mean over examples of the fitness measure of that name. For a network that returns several tensors in train
            mode, such as auxiliary heads, they use the first. Or a function (output, batch) -> scalar tensor.

    Raises:
        ConfigError: a value is out of bounds; the error lists all of them.
    """

    steps: int
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    loss: str | Loss = "kl"

    def __post_init__(self) -> None:
        given = {"lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        wrong = [f"finetune.steps: expected a whole number, got {self.steps!r}."] if type(self.steps) is not int else []
        wrong += [
            f"finetune.{name}: expected a number, got {value!r}."
            for name, value in given.items()
            if not isinstance(value, int | float) or isinstance(value, bool)
        ]
        if wrong:
            raise ConfigError(wrong)
        rules = [
            (self.steps >= 1, f"finetune.steps: expected at least 1, got {self.steps}"),
            (0 < self.lr < math.inf, f"finetune.lr: expected a finite number above 0, got {self.lr}"),
            (0 <= self.momentum < 1, f"finetune.momentum: expected at least 0 and below 1, got {self.momentum}"),
            (
                0 <= self.weight_decay < math.inf,
                f"finetune.weight_decay: expected a finite number of at least 0, got {self.weight_decay}",
            ),
            (
                callable(self.loss) or (isinstance(self.loss, str) and self.loss in LOSSES),
                f"finetune.loss: expected one of {', '.join(LOSSES)} or a function of (output, batch), "
                f"got {self.loss!r}",
            ),
        ]
        if problems := [f"{sentence}." for kept, sentence in rules if not kept]:
            raise ConfigError(problems)

    def steps_at(self, fidelity: float) -> int:
        """The number of steps at a fidelity, a share of all steps, rounded up."""
        return math.ceil(fidelity * self.steps - SHARE_ROUNDING)

    def optimizer(self, network: nn.Module, lr: float | None = None) -> torch.optim.SGD:
        """SGD over the parameters that require a gradient, at the rate `lr`; None for that of the options."""
        rate = self.lr if lr is None else lr
        return torch.optim.SGD(trained_parameters(network), rate, self.momentum, weight_decay=self.weight_decay)

    def training_loss(
        self, network: nn.Module, batch: Batch, seed: int, frozen: Iterable[nn.Module] = ()
    ) -> torch.Tensor:
        """The loss of a network on a batch, in train mode except for the `frozen` modules, with the random numbers of
        a seed."""
        with training(network, apart=frozen), torch.enable_grad(), repeatable(), seeded(seed):
            return self.loss_of(network(*map(torch.clone, batch.inputs)), batch)

    def loss_of(self, output: Any, batch: Batch) -> torch.Tensor:
        """The loss of a step. PluginError if it cannot be computed from this output."""
        if callable(self.loss):
            return checked_loss("finetune.loss", self.loss(output, batch))
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


def checked_loss(key: str, value: Any) -> torch.Tensor:
    """The value of a user's loss function; `key` is its setting. PluginError if it is no scalar with a gradient."""
    if not isinstance(value, torch.Tensor) or value.dim() or not value.requires_grad:
        raise PluginError(f"expected {key} to return a scalar tensor with a gradient, of shape (), got {_shown(value)}")
    return value


def _shown(value: object) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return f"a tensor of shape {tuple(value.shape)} {'with' if value.requires_grad else 'without'} one"
