"""Scores one candidate: stitch, re-estimate batch norms, apply the fitness. Stateless: every score starts afresh."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import PluginError
from autoprune.measure.anchor import Anchor
from autoprune.measure.batch import Batch
from autoprune.measure.fitness import Fitness
from autoprune.measure.recalibrate import recalibrate
from autoprune.prune.bank import Bank
from autoprune.prune.modes import evaluating
from autoprune.prune.zeros import WeightBank


@dataclass
class Scorer:
    """Turns candidates of one space into evaluations on one device.

    `calibrate` are the inputs batch norms are re-estimated on, `select` the batches the fitness sees; of the latter a
    fidelity below 1 uses the first batches only. With an `anchor` (see measure.anchor) re-estimated statistics are
    corrected by it, without they are taken as they are. `objective` names the value of a fitness that returns a float.
    `weights` puts the zeros into networks of a space with weight units.
    """

    bank: Bank
    space: SearchSpace
    calibrate: Sequence[tuple[torch.Tensor, ...]]
    select: Sequence[Batch]
    fitness: Fitness
    anchor: Anchor | None = None
    objective: str = "fitness"
    worker: str = field(default="serial")
    weights: WeightBank | None = None

    def network(self, candidate: Candidate) -> nn.Module:
        """The small network of a candidate as it would be deployed: stitched, batch norms re-estimated."""
        self.space.check(candidate)
        return self.build(self.space.counts(candidate))

    def build(self, counts: Mapping[str, int]) -> nn.Module:
        """The same for kept counts by unit, which need not be levels of the space."""
        network = self.bank.build(counts)
        if self.weights is not None:
            self.weights.apply(network, counts, self.bank.indices(self.bank.positions(counts)))
        if counts != self.space.counts(self.space.dense):  # the dense network keeps its own statistics
            recalibrate(network, self.calibrate)
            if self.anchor is not None:
                self.anchor.correct(network, self.bank.indices(self.bank.positions(counts)))
        return network

    def measure(self, network: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
        """The fitness of a network, checked: finite floats by name. PluginError otherwise."""
        with evaluating(network), torch.no_grad():
            return check_values(self.fitness(network, batches), self.objective)

    def score(self, candidate: Candidate) -> Evaluation:
        """One evaluation; whatever goes wrong with this candidate is part of it."""
        start = time.perf_counter()
        try:
            network = self.network(candidate)  # checks the candidate
            batches = self.select[: math.ceil(candidate.fidelity * len(self.select))]
            values = self.measure(network, batches)
        except Exception as error:  # a user's code may raise anything; the run goes on and the cause is recorded
            seconds = time.perf_counter() - start
            return Evaluation(candidate, {}, "failed", f"{type(error).__name__}: {error}", seconds, self.worker)
        return Evaluation(candidate, values, "ok", "", time.perf_counter() - start, self.worker)


def check_values(result: object, objective: str) -> dict[str, float]:
    """A fitness' result as finite floats by name."""
    values = dict(result) if isinstance(result, Mapping) else {objective: result}
    if not values:
        raise PluginError("expected the fitness to return a float or a dict of floats, got an empty dict")
    checked = {}
    for name, value in values.items():
        try:
            if isinstance(value, str | bytes):  # float() would read them
                raise TypeError
            checked[str(name)] = float(value)  # type: ignore[arg-type]  # anything a user returns; what fails is told
        except (TypeError, ValueError, RuntimeError):  # of a tensor with several elements
            raise PluginError(
                f"expected the fitness to return a float or a dict of floats, got {value!r} for {name!r}"
            ) from None
        if not math.isfinite(checked[str(name)]):
            raise PluginError(f"expected a finite fitness, got {name} = {value}")
    return checked


def with_dense_outputs(model: nn.Module, batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """The batches with the dense network's outputs filled in."""
    with evaluating(model), torch.no_grad():
        return tuple(batch._replace(dense=model(*batch.inputs)) for batch in batches)
