"""One network in a short fine-tune: its steps, and the checks on held-out examples that decide what is kept.

Step k does not depend on the total number of steps: it uses the k-th batch of a fixed order, the same random numbers
for dropout, and what the checks before it decided. So a short training is the beginning of a longer one, and a network
whose training is continued ends with the same bits as one that is trained from the start (on a GPU, if its kernels are
deterministic).

Batch norms first use the statistics of training batches, and what is measured is a copy whose statistics are
re-estimated on the first training examples. The running statistics of the training lag behind its weights: on the
digits, with a quarter of all widths, the KL to the dense network is 1.25 with running and 0.51 with re-estimated
statistics after 7 steps, 0.33 and 0.29 after 20 steps, 0.15 and 0.14 after 100 steps.

A check compares the loss of what is measured with the best loss so far, of which the first is that of the network
before training. If it is not lower, or if the loss of a step is not finite, the training returns to the best network
and goes on with a third of the rate, and with the statistics that this network has: those of small batches spoil a
network that is fitted well. An average of the weights is then what is measured. So no network is worse on the held-out
examples than before its training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from autoprune.errors import TrainingDiverged
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.borrowed import evaluating
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import cloned, named_tensors
from autoprune.train.averages import Averages
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.zeros import KeptZeros

FIRST, CHECK = 10, 25  # a check is after the first 10 steps since the start or a return, and after every 25 steps
LOWERED = 3.0  # what the learning rate is divided by after a check without an improvement
WARMUP = 10  # steps after a return over which the rate rises to its full value
DECAY = 0.9  # of the average of the weights

Tensors = dict[str, torch.Tensor]


@dataclass(eq=False)
class Learner:
    """A network in training, with everything that its next step needs. Parameters without a gradient are not trained.

    Args:
        network: the network; it is changed.
        plan: the options.
        examples: the training examples.
        held: the held-out examples.
        zeros: the zeros of its sparse weights, which stay zeros.

    Attributes:
        done: the number of steps taken.
        lr: the present learning rate.
        least: the loss on the held-out examples of the best weights so far.

    Raises:
        TrainingDiverged: the loss of the network is not finite.
    """

    network: nn.Module
    plan: FineTune
    examples: TrainingSet
    held: Sequence[Batch]
    zeros: KeptZeros
    done: int = field(default=0, init=False)
    lr: float = field(init=False)
    least: float = field(init=False)
    _averages: Averages | None = field(default=None, init=False)  # since the first return
    _since: int = field(default=0, init=False)  # steps since the start or the last return
    _best: Tensors = field(init=False)

    def __post_init__(self) -> None:
        self.lr, self.least = self.plan.lr, self._held_loss(self.network)
        if not math.isfinite(self.least):
            raise TrainingDiverged(f"expected a network with a finite loss before fine-tuning, got {self.least}.")
        self._best = cloned(named_tensors(self.network))
        self._optimizer = self.plan.optimizer(self.network)

    @property
    def nbytes(self) -> int:
        """The number of bytes of the network, its best tensors, its average, its momentum and its masks."""
        momentum = [value for state in self._optimizer.state.values() for value in state.values()]
        averages = self._averages.tensors if self._averages else {}
        parts = (named_tensors(self.network), self._best, averages, self.zeros.masks)
        held = [tensor for part in parts for tensor in part.values()]
        return sum(tensor.nbytes for tensor in (*held, *momentum) if isinstance(tensor, torch.Tensor))

    def train(self, steps: int) -> None:
        """Trains until `steps` steps are done in all."""
        while self.done < steps:
            loss = self.differentiate(self.examples.batch(self.done))
            self.done += 1
            if math.isfinite(loss):
                self._step()
            if not math.isfinite(loss) or (self._is_due() and not self._improved()):
                self._return()
        self._optimizer.zero_grad(set_to_none=True)

    def best(self) -> nn.Module:
        """A copy of the best network on the held-out examples, the present one included."""
        if not self._is_due():  # else it was just compared
            present = self._measured()
            if self._held_loss(present) < self.least:
                return present
        return copy_model(self.network, self._best).eval()

    def differentiate(self, batch: Batch) -> float:
        """Computes the loss and the gradients of the next step, in train mode."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.plan.training_loss(self.network, batch, self.done, self._frozen(self.network))
        torch.autograd.backward(loss)
        return loss.item()

    def _frozen(self, network: nn.Module) -> Iterable[nn.Module]:
        """The batch norms of a network that keep their statistics: all since the first return."""
        return tracked_norms(network).values() if self._averages else ()

    def _step(self) -> None:
        share = min(1.0, (self._since + 1) / WARMUP) if self._averages else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = self.lr * share
        self._optimizer.step()
        self.zeros.restore(self.network)
        if self._averages:
            self._averages.add(named_tensors(self.network), self._since)
        self._since += 1

    def _is_due(self) -> bool:
        return self._since == FIRST or self._since % CHECK == 0

    def _improved(self) -> bool:
        """Whether the present network is better than the best one, which it then is from now on."""
        present = self._measured()
        loss = self._held_loss(present)
        if not loss < self.least:  # also if it is not a number
            return False
        self.least, self._best = loss, cloned(named_tensors(present))
        return True

    @torch.no_grad()
    def _return(self) -> None:
        """Goes back to the best network, with a lower rate and batch norms that keep their statistics."""
        for name, tensor in named_tensors(self.network).items():
            tensor.copy_(self._best[name])
        self.lr /= LOWERED
        self._averages = Averages(named_tensors(self.network), DECAY)
        self._optimizer, self._since = self.plan.optimizer(self.network, self.lr), 0

    def _measured(self) -> nn.Module:
        """A copy as it is measured: averaged, or with re-estimated batch norms before the first return."""
        if self._averages:
            return copy_model(self.network, self._averages.tensors).eval()
        network = copy_model(self.network)
        recalibrate(network, self.examples.statistics_inputs)
        return network.eval()

    def _held_loss(self, network: nn.Module) -> float:
        """The mean loss over the held-out examples, in train mode only if a user's function may expect its outputs."""
        total = 0.0
        for batch in self.held:
            if callable(self.plan.loss):
                loss = self.plan.training_loss(network, batch, 0, self._frozen(network))
            else:
                with evaluating(network), torch.no_grad():
                    loss = self.plan.loss_of(network(*map(torch.clone, batch.inputs)), batch)
            total += loss.item() * batch.examples
        return total / sum(batch.examples for batch in self.held)
