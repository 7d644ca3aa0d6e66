"""The training of a round: plain steps at a constant rate, as networks with initial weights need them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from autoprune.errors import TrainingDiverged
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.prune.modules.copies import copy_model
from autoprune.train.examples import TrainingSet
from autoprune.train.finetune import FineTune
from autoprune.train.trainer import is_finite
from autoprune.train.zeros import KeptZeros


@dataclass(frozen=True)
class RoundsTraining:
    """The training of rounds; without a plan, networks are not trained.

    Short fine-tunes return to the best network where the loss on held-out examples does not fall; from initial weights
    it may rise at first, so rounds take all steps.
    """

    plan: FineTune | None
    examples: TrainingSet | None

    def trained(self, network: nn.Module, masks: Mapping[str, torch.Tensor], begin: int, end: int) -> nn.Module:
        """A network with these zeros after the steps from `begin` to `end`, and with re-estimated batch norms.

        Its weights are changed in place; the result is a copy.

        Raises:
            TrainingDiverged: it has numbers that are not finite.
        """
        zeros = KeptZeros(masks)
        zeros.restore(network)
        if self.plan is None or self.examples is None:
            return copy_model(network)
        plan = self.plan
        sgd = plan.optimizer(network)
        for step in range(begin, end):
            sgd.zero_grad(set_to_none=True)
            loss = plan.training_loss(network, self.examples.batch(step), step)
            torch.autograd.backward(loss)
            if not math.isfinite(loss.item()):
                raise TrainingDiverged(_diverged(f"a finite loss, got {loss.item()},", step, plan))
            sgd.step()
            zeros.restore(network)
        sgd.zero_grad(set_to_none=True)
        found = copy_model(network)
        recalibrate(found, self.examples.statistics_inputs)
        if not is_finite(found):
            raise TrainingDiverged(_diverged("finite weights and statistics, got others,", end, plan))
        return found

    @property
    def steps(self) -> int:
        """The number of steps of a round."""
        return 0 if self.plan is None else self.plan.steps


def _diverged(expected: str, step: int, plan: FineTune) -> str:
    return f"expected {expected} in the training of a round after {step} steps with a rate of {plan.lr}. Lower it."
