"""Trains the networks of an audit, from their own weights and from new random ones."""

from __future__ import annotations

from collections.abc import Collection, Sized
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from torch import nn

from autoprune.errors import ConfigError
from autoprune.run.audits.request import AuditRequest
from autoprune.run.session.session import Session
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.fresh import reinitialised
from autoprune.train.trainer import Trainer


@dataclass(frozen=True)
class AuditTraining:
    """Trains networks for a number of steps, with the examples in the order of a seed.

    Attributes:
        plan: the options of training; `plan.steps` are those of a network with its own weights.
        scratch_lr: the learning rate from new random weights.
        examples: the examples.
    """

    plan: FineTune
    scratch_lr: float
    examples: TrainingSet

    def trained(self, network: nn.Module, sparse: Collection[str], seed: int) -> nn.Module:
        """A copy of a network after all steps. TrainingDiverged if it has numbers that are not finite."""
        return self._after(self.plan, network, sparse, seed)

    def from_scratch(self, network: nn.Module, sparse: Collection[str], seed: int, steps: int) -> nn.Module:
        """The network with new random weights after so many steps; zeros of its sparse weights stay zeros."""
        plan = replace(self.plan, steps=steps, lr=self.scratch_lr)
        return self._after(plan, reinitialised(network, sparse, seed), sparse, seed)

    def facts(self, *, scratch: bool) -> dict[str, Any]:
        """What trained networks depend on, beside the networks, the seed and the steps."""
        plan = asdict(replace(self.plan, steps=1, lr=self.scratch_lr if scratch else self.plan.lr))
        return {"plan": plan, "batch": self.examples.size, "train": self.examples.sha256}

    def _after(self, plan: FineTune, network: nn.Module, sparse: Collection[str], seed: int) -> nn.Module:
        return Trainer(plan, replace(self.examples, seed=seed), 0).fully_trained(network, sparse)


def training_of(session: Session, request: AuditRequest) -> AuditTraining:
    """The training of an audit, whose examples are read and tested with one gradient of the dense network.

    Raises:
        ConfigError: the data have no train set, or passes over it cannot be counted.
        RunFailed: the dense network cannot be trained.
    """
    train = session.data.train
    if train is None:
        raise ConfigError(
            "expected data with a train set for an audit, which trains networks, got none. Give it one, "
            "Data.from_arrays(..., train=(x, y)), and open the run with these data."
        )
    if request.steps is None and not isinstance(train, Sized):
        raise ConfigError(
            "expected the number of steps for a train set without a length, whose passes cannot be counted, got "
            f"{'epochs' if request.epochs else 'neither steps nor epochs'}. Give --steps."
        )
    steps = request.steps or (request.epochs or 1) * len(cast(Sized, train))
    plan = FineTune(steps, request.lr, loss=request.loss)
    examples = replace(session, job=replace(session.job, finetune=plan)).training
    assert examples is not None  # as the job has a plan
    return AuditTraining(plan, request.scratch_lr or request.lr, examples)
