"""Short fine-tunes: a stitched network is trained for some steps before it is measured.

Step k is the same whatever is trained and however far: the same rate, the k-th batch of one order, the same random
numbers for dropout. So training for few steps is the beginning of training for more, and a network that goes on where
it stopped ends with the same bits as one that is trained from the start (on a GPU as far as its kernels repeat).

What is measured is a copy whose batch norms are re-estimated on the first training examples. The running statistics of
the training itself lag behind its weights: on the digits, widths of a quarter, KL to the dense network after 7 steps
1.25 by those and 0.51 re-estimated, after 20 steps 0.33 and 0.29, after 100 steps 0.15 and 0.14. The dense network's
error says nothing of a network that was trained on statistics of batches: with anchored ones 0.16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from autoprune.errors import ConfigError, PluginError, TrainingDiverged
from autoprune.measure.batch import Batch, gathered
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import MEASURES
from autoprune.prune.modules.batch_norms import NormStatistics, tracked_norms
from autoprune.prune.modules.borrowed import repeatable, seeded, training
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.prune.passes.containers import main_output

Loss = Callable[[Any, Batch], torch.Tensor]  # (output of the network, batch) -> its mean over the batch

LOSSES = {"kl": MEASURES["kl"], "mse": MEASURES["mse"], "cross_entropy": MEASURES["loss"]}  # summed over examples
COMPARING = ("kl", "mse")  # with the dense network's outputs
SETTLING = 500  # training examples that batch norms are re-estimated on afterwards
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


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Labelled examples and how many make a batch; `sha256` tells them from others.

    Every pass is in an order of its own, the same for all networks and runs; the rest that fills no batch is left out.
    """

    examples: Batch
    size: int
    sha256: str = ""

    @staticmethod
    def of(batches: Sequence[Batch], sha256: str = "") -> TrainingSet:
        """All examples of the batches, in batches as large as the largest. DataError where they are not alike."""
        return TrainingSet(gathered(batches), max(batch.examples for batch in batches), sha256)

    @property
    def settling(self) -> list[tuple[torch.Tensor, ...]]:
        """The inputs that batch norms are re-estimated on."""
        batches = min(math.ceil(SETTLING / self.size), self.examples.examples // self.size)
        return [self.batch(step).inputs for step in range(batches)]

    def batch(self, step: int) -> Batch:
        """That of a step, counted from 0."""
        count = self.examples.examples
        epoch, place = divmod(step, count // self.size)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(epoch))
        rows = order[place * self.size : (place + 1) * self.size]
        return self.examples.placed(lambda x: x[rows.to(x.device)])


@dataclass(eq=False)
class Learner:
    """A network after so many steps (`done`), with what its next step needs.

    `masks` are of weights with zeros, which stay zeros.
    """

    network: nn.Module
    optimizer: torch.optim.SGD
    masks: Mapping[str, torch.Tensor]
    done: int = 0

    @staticmethod
    def of(network: nn.Module, plan: FineTune, sparse: Sequence[str] = ()) -> Learner:
        """One that begins. Parameters that need no gradient are left alone."""
        tensors = named_tensors(network)
        masks = {name: tensors[name].detach() != 0 for name in sparse if name in tensors}
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        sgd = torch.optim.SGD(trained, lr=plan.lr, momentum=plan.momentum, weight_decay=plan.weight_decay)
        return Learner(network, sgd, masks)

    @property
    def nbytes(self) -> int:
        """Of the network, its momentum and its masks."""
        held = [*named_tensors(self.network).values(), *self.masks.values()]
        momentum = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(tensor.nbytes for tensor in (*held, *momentum) if isinstance(tensor, torch.Tensor))

    def train(self, plan: FineTune, examples: TrainingSet, steps: int) -> None:
        """Goes on until so many steps are done in all.

        Raises TrainingDiverged for a loss that is not finite; then the network is of no use.
        """
        while self.done < steps:
            loss = self.differentiate(plan, examples.batch(self.done))
            if not math.isfinite(loss):
                raise TrainingDiverged(_diverged("a finite loss", str(loss), self.done, plan))
            self._step()
        self.optimizer.zero_grad(set_to_none=True)

    def differentiate(self, plan: FineTune, batch: Batch) -> float:
        """The loss of the next step, whose gradients are set; every module is in train mode meanwhile."""
        self.optimizer.zero_grad(set_to_none=True)
        with training(self.network), torch.enable_grad(), repeatable(), seeded(self.done):
            loss = plan.loss_of(self.network(*batch.inputs), batch)
            torch.autograd.backward(loss)
        return loss.item()

    @torch.no_grad()
    def _step(self) -> None:
        self.optimizer.step()
        for name, mask in self.masks.items():
            self.network.get_parameter(name).mul_(mask)
        self.done += 1


@dataclass(eq=False)
class Trainer:
    """Trains networks by their keys, and keeps them within `keep_bytes` for when more steps are asked for.

    Those used last stay. One that is not kept any more is trained from the start again, to the same bits.
    """

    plan: FineTune
    examples: TrainingSet
    keep_bytes: int
    _kept: dict[Hashable, Learner] = field(default_factory=dict)
    _held: int = 0  # bytes of those

    def train(self, learner: Learner, steps: int) -> nn.Module:
        """A copy of the network after so many steps in all, its batch norms settled.

        Raises TrainingDiverged where it would have a number that is not finite.
        """
        learner.train(self.plan, self.examples, steps)
        network = copy_model(learner.network)
        recalibrate(network, self.examples.settling)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in _trained_tensors(network)):
            raise TrainingDiverged(_diverged("finite weights and statistics", "others", learner.done, self.plan))
        return network

    def trained(self, key: Hashable, begin: Callable[[], nn.Module], sparse: Sequence[str], steps: int) -> nn.Module:
        """The same of the network with a key, which `begin` makes where it is not kept with fewer steps."""
        learner = self._taken(key) if key in self._kept else None
        if learner is None or learner.done > steps:
            learner = Learner.of(begin(), self.plan, sparse)
        network = self.train(learner, steps)
        self._kept[key] = learner
        self._held += learner.nbytes
        while self._held > self.keep_bytes:
            self._taken(next(iter(self._kept)))
        return network

    def _taken(self, key: Hashable) -> Learner:
        learner = self._kept.pop(key)
        self._held -= learner.nbytes
        return learner


def _trained_tensors(network: nn.Module) -> list[torch.Tensor]:
    """Parameters and statistics of batch norms; other buffers may hold infinities, as masks of attention do."""
    statistics = [NormStatistics.of(norm) for norm in tracked_norms(network).values()]
    return [*network.parameters(), *(tensor for own in statistics for tensor in (own.mean, own.variance))]


def _diverged(expected: str, got: str, done: int, plan: FineTune) -> str:
    return f"expected {expected} while fine-tuning, got {got} after {done} of {plan.steps} steps. Lower finetune.lr."
