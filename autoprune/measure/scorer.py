"""Scores one candidate: builds its network, sets batch norm statistics, applies the fitness. Scores are independent."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from autoprune.core.evaluation import Evaluation, merged
from autoprune.core.process import ending_forks
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import PluginError
from autoprune.measure.batch import Batch, joined_outputs
from autoprune.measure.batch_norms.contract import WrittenStatistics
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.measure.fitness import Fitness, averages, is_builtin, kept_for
from autoprune.measure.intact import Intact
from autoprune.measure.settings import ScorerSettings
from autoprune.measure.stage import Stage
from autoprune.measure.training import NetworkTrainer, Training
from autoprune.prune.bank.channels import Bank
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.devices.halving import halving
from autoprune.prune.modules.borrowed import evaluating, on_copies, seeded, torch_threads
from autoprune.prune.passes.containers import copied

CAUSE_LENGTH = 1000  # characters of a user's error message that are kept; some messages print whole tensors


@dataclass
class Scorer:
    """Turns candidates of one space into evaluations on one device.

    Attributes:
        bank: the weights that networks are assembled from.
        space: the levels of the candidates.
        calibrate: the inputs that batch norms are re-estimated on.
        select: the batches that the fitness measures. A fidelity below 1 uses the first examples only; they end exactly
            at the fidelities that a search has announced, and elsewhere at the end of a batch.
        fitness: measures a network on batches.
        scoring: the settings of scoring. Deployed networks get statistics by its batch norm policy, but not its form.
        objective: the name for the value of a fitness that returns a float.
        also: further measurements of a subnet, by name.
        worker: the name of the worker, which evaluations report.
        training: if given, every network except the dense one is trained before it is measured. Training also sets the
            statistics of batch norms. A fidelity is then a share of the steps, and all selection examples are used.
    """

    bank: Bank
    space: SearchSpace
    calibrate: Sequence[tuple[torch.Tensor, ...]]
    select: Sequence[Batch]
    fitness: Fitness
    scoring: ScorerSettings = field(default_factory=ScorerSettings)
    objective: str = "fitness"
    also: Mapping[str, Callable[[Subnet], float]] = field(default_factory=dict)
    worker: str = field(default="serial")
    training: Training | None = None

    def with_scoring(self, **changes: Any) -> Scorer:
        """Returns a scorer with changed options and an empty cache."""
        return replace(self, scoring=replace(self.scoring, **changes))

    @cached_property
    def deployed_norms(self) -> WrittenStatistics:
        """The batch norm policy of deployed networks."""
        return POLICIES[self.scoring.batch_norms].deployed()(self.bank.model, self.calibrate)

    @cached_property
    def stage(self) -> Stage:
        """The stage that prepares networks for scoring."""
        return Stage(self.bank, self.calibrate, self.select, self.scoring, reading=is_builtin(self.fitness))

    @cached_property
    def trainer(self) -> NetworkTrainer:
        """The trainer of networks; `training` must be given."""
        assert self.training is not None
        return self.training.trainer(self.scoring.reuse_bytes)

    def prepare(self) -> None:
        """Computes the values that candidates share, so that the first candidate takes no longer than later ones."""
        if self.training is None:
            self.stage.prepare()

    def subnet(self, candidate: Candidate) -> Subnet:
        """The part of the model that a candidate keeps. SpaceError if the candidate is not in the space."""
        self.space.check(candidate)
        return self.bank.subnet(self.space.counts(candidate))

    def network(self, candidate: Candidate) -> nn.Module:
        """The network of a candidate, with batch norm statistics, as it is deployed without training or a fit."""
        return self.build(self.subnet(candidate))

    def build(self, subnet: Subnet) -> nn.Module:
        """The network of a subnet, whose counts need not be levels of the space; see `network`."""
        network = self.bank.build(subnet)
        if not subnet.is_whole:  # the dense network keeps its own statistics
            self.deployed_norms.settle(network, subnet.indices)
        return network

    def steps(self, subnet: Subnet, fidelity: float = 1.0) -> int:
        """The number of steps that the network of a subnet is trained for; the dense network is never trained."""
        if self.training is None or subnet.is_whole:
            return 0
        return self.training.steps_at(fidelity)

    def trained(self, subnet: Subnet, steps: int) -> nn.Module:
        """The network of a subnet after `steps` training steps, as it is deployed."""
        key, begin = tuple(subnet.counts.items()), functools.partial(self.build, subnet)
        with torch_threads(self.scoring.form.threads):
            return self.trainer.trained(key, begin, subnet.sparse, steps)

    def fully_trained(self, network: nn.Module, subnet: Subnet) -> nn.Module:
        """A copy of a subnet's network, with any weights, after all training steps."""
        with torch_threads(self.scoring.form.threads):
            return self.trainer.fully_trained(network, subnet.sparse)

    def measure(self, network: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
        """The fitness of a network; see `measured`."""
        return measured(network, batches, self.fitness, self.objective, self._intact)

    @property
    def remark(self) -> str:
        """A remark for the user about the fitness, empty if there is none."""
        return self._intact.remark

    @cached_property
    def _intact(self) -> Intact:
        """The guard that undoes writes to the batches."""
        return Intact()

    @ending_forks()
    def score(self, candidate: Candidate) -> Evaluation:
        """Evaluates a candidate; a failure of any kind is recorded in the evaluation."""
        start = time.perf_counter()
        try:
            evaluation = self._measured(candidate)
        except KeyboardInterrupt:  # from the user or a signal
            raise
        except BaseException as error:  # a user's code may raise anything, also SystemExit; the cause is recorded
            seconds = time.perf_counter() - start
            return Evaluation(candidate, {}, "failed", cause_of(error), seconds, self.worker, remark=self.remark)
        return replace(evaluation, seconds=time.perf_counter() - start)

    def _measured(self, candidate: Candidate) -> Evaluation:
        subnet = self.subnet(candidate)
        steps = self.steps(subnet, candidate.fidelity)
        with self.stage.holding(self.trained(subnet, steps)) if steps else self.stage.on(subnet) as network:
            parts = [self._on_part(network, *part) for part in self._parts(candidate)]
        whole = functools.reduce(merged, parts)
        also = {name: measurement(subnet) for name, measurement in self.also.items()}  # independent of the examples
        if twice := sorted(whole.values.keys() & also.keys()):
            raise PluginError(f"expected the fitness to report other names than {twice}, which the guide measures")
        by_part = {name: (value,) * len(parts) for name, value in also.items()} if self.scoring.in_parts else {}
        return replace(
            whole,
            candidate=candidate,
            values={**whole.values, **also},
            parts={**whole.parts, **by_part},
            worker=self.worker,
            steps=steps,
            remark=self.remark,
        )

    def _parts(self, candidate: Candidate) -> Iterator[tuple[float, float]]:
        """The parts of the selection set to measure one by one, each between two shares."""
        if self.training is not None:
            return iter([(0.0, 1.0)])
        inside = [
            f for f in self.scoring.fidelities if self.scoring.in_parts and candidate.since < f < candidate.fidelity
        ]
        return itertools.pairwise([candidate.since, *inside, candidate.fidelity])

    def _on_part(self, network: nn.Module, since: float, until: float) -> Evaluation:
        """The fitness on a part of the selection set."""
        batches = self.stage.part(since, until)
        values = self.measure(network, batches)
        extended = averages(self.fitness) and self.training is None  # by more examples, not by more steps
        examples = sum(batch.examples for batch in batches) if extended else 0
        parts = {name: (value,) for name, value in values.items()} if self.scoring.in_parts else {}
        return Evaluation(Candidate((), until, since), values, examples=examples, parts=parts)


def cause_of(error: BaseException) -> str:
    """The type and message of an exception, short enough for a line of a report."""
    try:
        said = str(error)
    except Exception:  # a user's __str__ may raise anything, too
        said = "its message cannot be printed"
    return f"{type(error).__name__}: {said[:CAUSE_LENGTH]}"


@ending_forks()
def measured(
    network: nn.Module, batches: Sequence[Batch], fitness: Fitness, objective: str, intact: Intact
) -> dict[str, float]:
    """Applies the fitness to a network and checks its values.

    The global generators are seeded for every network and restored afterwards, so that a fitness that draws random
    numbers gives the same values on any worker and in any order.

    Args:
        network: the network.
        batches: the batches to measure it on.
        fitness: the function to apply.
        objective: the name for the value of a fitness that returns a float.
        intact: undoes writes of a user's fitness to the batches and remarks on them.

    Returns:
        Finite floats by name.

    Raises:
        PluginError: the fitness returned anything else.
    """
    lending = contextlib.nullcontext(batches) if is_builtin(fitness) else intact.lending(batches)
    with evaluating(network), on_copies(network), torch.no_grad(), seeded(0), lending as lent:
        values = halving(functools.partial(fitness, network), lent, stage="a score")
        return checked_values(values, objective)


def checked_values(result: object, objective: str) -> dict[str, float]:
    """The result of a fitness as finite floats by name. PluginError if it is anything else."""
    values = dict(result) if isinstance(result, Mapping) else {objective: result}
    if not values:
        raise PluginError("expected the fitness to return a float or a dict of floats, got an empty dict")
    if len({str(name) for name in values}) < len(values):
        raise PluginError(f"expected the fitness to report each name once, got {list(values)}")
    checked = {}
    for name, value in values.items():
        try:
            if isinstance(value, str | bytes):  # float() would parse them
                raise TypeError
            checked[str(name)] = float(value)  # type: ignore[arg-type]  # a user may return anything
        except (TypeError, ValueError, RuntimeError):  # RuntimeError comes from a tensor with several elements
            raise PluginError(
                f"expected the fitness to return a float or a dict of floats, got {value!r} for {name!r}"
            ) from None
        if not math.isfinite(checked[str(name)]):
            raise PluginError(f"expected a finite fitness, got {name} = {value}")
    return checked


def with_dense_outputs(model: nn.Module, batches: Sequence[Batch], fitness: Fitness | None = None) -> tuple[Batch, ...]:
    """Returns the batches with the dense network's outputs filled in, or with what the fitness needs of them."""
    kept = kept_for(fitness) if fitness is not None else lambda output: output

    def dense(inputs: Sequence[tuple[torch.Tensor, ...]]) -> Any:
        outputs = [kept(model(*copied(part))) for part in inputs]
        return outputs[0] if len(outputs) == 1 else joined_outputs(outputs)

    with evaluating(model), torch.no_grad():
        filled = (halving(dense, [batch.inputs], stage="dense outputs") for batch in batches)
        return tuple(batch._replace(dense=own) for batch, own in zip(batches, filled, strict=True))
