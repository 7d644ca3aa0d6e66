"""Trains the networks of an audit, from their own weights and from new random ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from autoprune.errors import AutopruneError, RunFailed
from autoprune.prune.bank.subnet import Subnet
from autoprune.run.audits.request import AuditRequest
from autoprune.run.recovery.conduct import training_examples
from autoprune.run.session.session import Session
from autoprune.train.examples import TrainingSet
from autoprune.train.fresh import reinitialised
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.options import Recovery


@dataclass(frozen=True)
class AuditTraining:
    """Trains networks as a recovery does, and returns them as they are after the last step.

    Attributes:
        options: the options of training; `options.steps` are those of a network with its own weights.
        scratch_lr: the learning rate from new random weights.
        examples: the examples.
        dense: the dense network, for losses that compare with it.
    """

    options: Recovery
    scratch_lr: float
    examples: TrainingSet
    dense: nn.Module

    @property
    def steps(self) -> int:
        """The number of steps of a network with its own weights."""
        return self.options.steps_of(self.examples.per_epoch)

    def trained(self, network: nn.Module, subnet: Subnet, seed: int) -> nn.Module:
        """A copy of a network after all steps, with the seed of the order of the examples.

        Raises:
            TrainingDiverged: it has numbers that are not finite.
            RunFailed: it cannot be trained.
        """
        return self._after(self.options, network, subnet, seed)

    def from_scratch(self, network: nn.Module, subnet: Subnet, seed: int, steps: int) -> nn.Module:
        """The network with new random weights after so many steps; zeros of its sparse weights stay zeros."""
        options = replace(self.options, steps=steps, epochs=None, lr=self.scratch_lr)
        return self._after(options, reinitialised(network, subnet.sparse, seed), subnet, seed)

    def facts(self, *, scratch: bool) -> dict[str, Any]:
        """What trained networks depend on, beside the networks, the seed and the steps."""
        options = replace(self.options, steps=1, epochs=None, lr=self.scratch_lr if scratch else self.options.lr)
        return {"options": options.to_json(), "train": self.examples.sha256}

    def _after(self, options: Recovery, network: nn.Module, subnet: Subnet, seed: int) -> nn.Module:
        given, examples = replace(options, seed=seed), replace(self.examples, seed=seed)
        try:
            return Recovering(network, self.dense, given, examples, subnet.indices, subnet.sparse).run().network
        except AutopruneError:
            raise
        except Exception as error:  # a user's network may raise anything in train mode
            raise RunFailed(f"the networks of the audit cannot be trained: {type(error).__name__}: {error}") from error


def training_of(session: Session, request: AuditRequest) -> AuditTraining:
    """The training of an audit, whose examples are read.

    Raises:
        ConfigError: the data have no train set for a loss that needs labels, or an option is out of bounds.
    """
    epochs = request.epochs or 1 if request.steps is None else None
    options = Recovery(epochs, request.steps, loss=request.loss, lr=request.lr, augment=request.augment)
    scratch_lr = request.lr if request.scratch_lr is None else request.scratch_lr
    return AuditTraining(options, scratch_lr, training_examples(session.data, options), session.model)
