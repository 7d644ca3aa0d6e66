"""Short fine-tunes: an assembled network is trained for some steps before it is measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field

import torch
from torch import nn

from autoprune.core.cache import ByteCache
from autoprune.measure.batch import Batch
from autoprune.prune.modules.batch_norms import NormStatistics, tracked_norms
from autoprune.prune.modules.copies import copy_model
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune, Loss
from autoprune.train.learner import Learner
from autoprune.train.zeros import KeptZeros


@dataclass(eq=False)
class Trainer:
    """Trains networks and keeps at most `keep_bytes` of them, by key, to continue their training later.

    The most recently used networks are kept. The others are trained from the start again, to the same bits.
    """

    plan: FineTune
    examples: TrainingSet
    keep_bytes: int
    _kept: ByteCache[Hashable, Learner] = field(init=False)
    _rest: TrainingSet = field(init=False)
    _held: list[Batch] = field(init=False)

    def __post_init__(self) -> None:
        self._kept = ByteCache(self.keep_bytes)
        self._rest, self._held = self.examples.held_out()

    def trained(self, key: Hashable, begin: Callable[[], nn.Module], sparse: Collection[str], steps: int) -> nn.Module:
        """Returns the network of a key after `steps` steps; `begin` makes it unless it is kept with fewer steps."""
        learner = self._kept.pop(key) if key in self._kept else None
        if learner is None or learner.done > steps:
            learner = self.learner(begin(), sparse)
        learner.train(steps)
        self._kept.put(key, learner, learner.nbytes)
        return learner.best()

    def fully_trained(self, network: nn.Module, sparse: Collection[str]) -> nn.Module:
        """Returns a copy of any network, with any weights, after all steps."""
        learner = self.learner(copy_model(network), sparse)
        learner.train(self.plan.steps)
        return learner.best()

    def learner(self, network: nn.Module, sparse: Collection[str] = ()) -> Learner:
        """A learner of a network, which it changes, before its first step."""
        return Learner(network, self.plan, self._rest, self._held, KeptZeros.of(network, sparse))


@dataclass(frozen=True)
class FineTuning:
    """The options of fine-tuning with the examples that networks are trained on. It makes trainers."""

    plan: FineTune
    examples: TrainingSet

    @property
    def loss(self) -> str | Loss:
        return self.plan.loss

    def steps_at(self, fidelity: float) -> int:
        return self.plan.steps_at(fidelity)

    def trainer(self, keep_bytes: int) -> Trainer:
        return Trainer(self.plan, self.examples, keep_bytes)


def norm_statistics(network: nn.Module) -> list[torch.Tensor]:
    """The running means and variances of batch norms."""
    statistics = [NormStatistics.of(norm) for norm in tracked_norms(network).values()]
    return [tensor for own in statistics for tensor in (own.mean, own.variance)]


def is_finite(network: nn.Module) -> bool:
    """Whether parameters and batch norm statistics are finite. Other buffers may hold infinities, as masks do."""
    return all(bool(torch.isfinite(x).all()) for x in (*network.parameters(), *norm_statistics(network)))
