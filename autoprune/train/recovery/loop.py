"""The training loop of recoveries.

A step is a function of the seed, the number of the step and the state before it: the batch, its augmentation and the
random numbers of dropout follow from the first two. So a training that is continued from a saved state ends with the
same bits as one without interruption (on a GPU, if its kernels are deterministic).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from autoprune.errors import PluginError, TrainingDiverged
from autoprune.measure.batch import Batch
from autoprune.prune.devices.halving import full, parts_of, release
from autoprune.prune.devices.memory import device_of
from autoprune.prune.modules.borrowed import repeatable, seeded
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import cloned, named_tensors
from autoprune.train.averages import Averages
from autoprune.train.optimizers import make_optimizer, trained_parameters
from autoprune.train.recovery.augment import Augment, flip_crop
from autoprune.train.recovery.blocks import Indices
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.outcome import Judge, Outcome, Point
from autoprune.train.recovery.processes import Processes
from autoprune.train.recovery.schedule import rate
from autoprune.train.recovery.state import Saved, joined, load_optimizer, optimizer_tensors, part
from autoprune.train.recovery.step_loss import StepLoss
from autoprune.train.recovery.trained import Trained
from autoprune.train.trainer import is_finite, norm_statistics

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGE_PRIME = 1_000_003


class Batches(Protocol):
    """The examples of a training (train.examples.TrainingSet)."""

    @property
    def per_epoch(self) -> int:
        """The number of batches of an epoch."""

    @property
    def least(self) -> torch.Tensor:
        """(c,) the least value of each channel of images."""

    def batch(self, step: int) -> Batch:
        """The batch of a step (0-based), the same in every call."""


def _nothing(loop: Recovering) -> None:
    """Does nothing after a step."""


@dataclass(eq=False)
class Recovering:
    """The recovery of one network, which can be saved after any step and continued.

    >>> outcome = Recovering(small, dense, Recovery(epochs=10), batches).run(judge)
    >>> outcome.network

    Attributes:
        network: the pruned network, which is not changed: a copy is trained.
        teacher: the dense network, in the order of whose positions `kept` counts; None if no loss needs it.
        options: the options.
        batches: the training examples.
        kept: the positions of the dense network's tensors that the network keeps, as `Subnet.indices` has them; needed
            only for losses that compare features that lost positions.
        sparse: names of weights whose zeros stay zeros.
        processes: those that train the network together.
        done: the number of steps taken.
        accumulate: the number of parts of a batch, which doubles where a device runs out of memory.
        history: the measurements so far.
    """

    network: nn.Module
    teacher: nn.Module | None
    options: Recovery
    batches: Batches
    kept: Indices = field(default_factory=dict)
    sparse: Collection[str] = ()
    processes: Processes = field(default_factory=Processes)
    done: int = field(default=0, init=False)
    accumulate: int = field(init=False)
    history: list[Point] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        example = [x[:1].to(device_of(self.network)) for x in self.batches.batch(0).inputs]
        self._trained = Trained(self.network, self.options, self.sparse, example)
        self._optimizer = make_optimizer(self._trained, self.options)
        self._averages = Averages(self._tensors, self.options.ema) if self.options.ema else None
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self.options.precision == "float16")
        self._loss = StepLoss(self._trained.network, self._trained, self.teacher, self.options, self.kept)
        self._best: dict[str, torch.Tensor] = {}
        self._losses: list[float] = []
        self.accumulate = self.options.accumulate

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self.options.steps_of(self.batches.per_epoch)

    @property
    def loss(self) -> float | None:
        """The loss of the last step since the last measurement; None before there was one."""
        return self._losses[-1] if self._losses else None

    @property
    def summary(self) -> str:
        """The state of the training in a few words: the last loss, the last measurement, and the best step."""
        loss = [] if self.loss is None else [f"loss {self.loss:.4g}"]
        if self.best is None:
            return "".join(loss)
        last = [f"{name} {value:.4g}" for name, value in self.history[-1].values.items()]
        return ", ".join([*loss, *last, f"best at step {self.best.step:,}"])

    @property
    def best(self) -> Point | None:
        """The best measurement so far, the earliest of equal ones; None before the first one."""
        return min(self.history, key=lambda point: (point.losses, point.step), default=None)

    def run(self, judge: Judge | None = None, after: Callable[[Recovering], None] = _nothing) -> Outcome:
        """Trains until the last step.

        Args:
            judge: measures a network on the selection set: before the first step, then after every epoch or every
                `evaluate` steps and at the end. The best network is returned. Without it the last one is returned.
            after: called after every step and the measurement that follows it, as well as after the first measurement.
                It may save the state.

        Raises:
            TrainingDiverged: the loss or the weights are not finite, and nothing was measured. With measurements the
                training ends there, and the outcome has the best network until then and says why.
            DeviceMemoryError: the device has too little memory for one example at a time.
        """
        if judge is not None and not self.history:
            self._measure(judge)
            after(self)
        while self.done < self.steps:
            loss = self._step()
            measuring = judge is not None and self._is_due()
            if not math.isfinite(loss) or (measuring and not is_finite(self._trained)):
                return self._diverged(loss)
            self._losses.append(loss)
            if judge is not None and measuring:
                self._measure(judge)
            after(self)
        return self._outcome()

    def state(self) -> Saved:
        """Everything that the next step needs. The tensors are those in training, which the next step changes."""
        tensors = joined(
            network=self._tensors,
            average=self._averages.tensors if self._averages else {},
            best=self._best,
            optimizer=optimizer_tensors(self._trained, self._optimizer),
        )
        facts = {
            "done": self.done,
            "accumulate": self.accumulate,
            "losses": list(self._losses),
            "history": [point.to_json() for point in self.history],
            "scaler": self._scaler.state_dict(),
        }
        return Saved(tensors, facts)

    @torch.no_grad()
    def load(self, saved: Saved) -> None:
        """Continues from a state that `state` returned for the same network, options and examples."""
        for name, tensor in part("network", saved).items():
            self._tensors[name].copy_(tensor)
        if self._averages is not None:
            for name, tensor in part("average", saved).items():
                self._averages.tensors[name].copy_(tensor)
        self._best = part("best", saved)
        load_optimizer(self._trained, self._optimizer, part("optimizer", saved))
        facts = saved.facts
        self.done, self.accumulate, self._losses = facts["done"], facts["accumulate"], list(facts["losses"])
        self.history = [Point.from_json(point) for point in facts["history"]]
        self._scaler.load_state_dict(facts["scaler"])

    @property
    def _device(self) -> torch.device:
        return device_of(self._trained.network)

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        return named_tensors(self._trained)

    def _is_due(self) -> bool:
        every = self.options.evaluate or self.batches.per_epoch
        return self.done % every == 0 or self.done == self.steps

    def _measure(self, judge: Judge) -> None:
        network = self._current()
        losses, values = judge(network)
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        point = Point(self.done, loss, tuple(losses), dict(values))
        self.history.append(point)
        self._losses = []
        if self.best is point:
            self._best = cloned(named_tensors(network))

    def _current(self) -> nn.Module:
        """A copy of the network as it is measured: with averaged tensors if there are averages."""
        return self._trained.plain(self._averages.tensors if self._averages else None)

    def _outcome(self, stopped: str = "") -> Outcome:
        network = self._trained.unfrozen(copy_model(self.network, self._best)) if self._best else self._current()
        return Outcome(network, self.best, tuple(self.history), self.done, stopped)

    def _diverged(self, loss: float) -> Outcome:
        got = f"a loss of {loss}" if not math.isfinite(loss) else "weights or statistics that are not finite"
        said = f"the training ended at step {self.done:,} of {self.steps:,} with {got}. Lower recover.lr."
        if self.best is None:
            raise TrainingDiverged(said)
        return self._outcome(said)

    def _step(self) -> float:
        """Takes a step and returns its loss; without the update if the loss is not finite."""
        batch = self._augmented(self.batches.batch(self.done).placed(lambda x: x.to(self._device)))
        loss = self._differentiate(self.processes.share(batch), batch.examples)
        if math.isfinite(loss):
            self._update()
        self.done += 1
        return loss

    def _augmented(self, batch: Batch) -> Batch:
        with seeded(self._seed(0)):
            return self._augment(batch)

    @property
    def _augment(self) -> Augment:
        augment = self.options.augment
        if callable(augment):
            return _checked(augment)
        return self._flip_crop if augment == "flip_crop" else lambda batch: batch

    def _flip_crop(self, batch: Batch) -> Batch:
        return flip_crop(batch, lambda: self.batches.least)(batch)

    def _seed(self, use: int) -> int:
        """The seed of the random numbers of this step; augmentation and passes have different ones."""
        return int((self.options.seed * _LARGE_PRIME + 2 * self.done + use) % 2**32)

    def _differentiate(self, batch: Batch, examples: int) -> float:
        """The loss and the gradients of this process's share of so many examples, added up over the processes."""
        loss = torch.tensor(self._own_gradients(batch, examples), device=self._device)
        gradients = [p.grad for p in trained_parameters(self._trained) if p.grad is not None]
        self.processes.add([loss, *gradients])
        self.processes.average(norm_statistics(self._trained))
        return loss.item()

    def _own_gradients(self, batch: Batch, examples: int) -> float:
        """The loss and the gradients of a batch, in more parts if the device runs out of memory."""
        while True:
            buffers = cloned(dict(self._trained.named_buffers()))
            size = -(-batch.examples // self.accumulate)
            try:
                return self._backward(parts_of(batch, size), examples)
            except torch.OutOfMemoryError as error:
                if size == 1 or self.processes.count > 1:
                    raise full(parts_of(batch, 1), error, "recovery") from error
            with torch.no_grad():
                for name, buffer in self._trained.named_buffers():
                    buffer.copy_(buffers[name])
            self.accumulate = 2 * self.accumulate
            release()

    def _backward(self, parts: list[Batch], examples: int) -> float:
        self._optimizer.zero_grad(set_to_none=True)
        total = 0.0
        with self._trained.in_training(), torch.enable_grad(), repeatable(), seeded(self._seed(1)):
            for one in parts:
                with self._precision():
                    loss = self._loss(one) * (one.examples / examples)
                torch.autograd.backward(self._scaler.scale(loss))
                total += loss.item()
        return total

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _DTYPES.get(self.options.precision)
        return contextlib.nullcontext() if dtype is None else torch.autocast(self._device.type, dtype)

    def _update(self) -> None:
        """Moves the weights by the gradients of this step."""
        steps = self.steps
        share = rate(self.done, steps, self.options.warmup_of(steps))
        for group in self._optimizer.param_groups:
            group["lr"] = self.options.lr * share
        if self.options.clip:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(trained_parameters(self._trained), self.options.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._trained.restore_zeros()
        if self._averages is not None:
            self._averages.add(self._tensors, self.done)


def _checked(augment: Augment) -> Augment:
    """The user's function, whose result must be a batch of as many examples."""

    def checked(batch: Batch) -> Batch:
        found = augment(batch)
        if not isinstance(found, Batch) or found.examples != batch.examples:
            raise PluginError(
                f"expected augment to return an autoprune.Batch of {batch.examples} examples, got "
                f"{found.examples if isinstance(found, Batch) else type(found).__name__}"
            )
        return found

    return checked
