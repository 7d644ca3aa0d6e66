"""Scores one candidate: builds its network, settles batch norms, applies the fitness. No score depends on another."""

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
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.contract import WrittenStatistics
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.measure.fitness import Fitness, averages, is_own
from autoprune.measure.intact import Intact
from autoprune.measure.settings import Scoring
from autoprune.measure.stage import Stage
from autoprune.measure.training import NetworkTrainer, Training
from autoprune.prune.bank.channels import Bank
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.modules.borrowed import evaluating, on_copies, seeded, torch_threads
from autoprune.prune.passes.containers import copied

CAUSE_LENGTH = 1000  # characters of what a user's code says when it fails; some print whole tensors


@dataclass
class Scorer:
    """Turns candidates of one space into evaluations on one device.

    `calibrate` are the inputs batch norms are re-estimated on, `select` the batches the fitness sees; of the latter a
    fidelity below 1 uses the first examples only, which end exactly at the fidelities that a search has announced and
    elsewhere with a batch. `scoring` says how scores are taken. Networks that are deployed have the statistics that its
    policy for batch norms says, and nothing of its form. `objective` names the value of a fitness that returns a float;
    `also` are further measurements by name, of a subnet.

    With `training` every network but the dense one is trained before it is measured, which leaves nothing for the
    policy for batch norms to do. Its fidelity is then the share of the steps, and all selection examples are
    measured.
    """

    bank: Bank
    space: SearchSpace
    calibrate: Sequence[tuple[torch.Tensor, ...]]
    select: Sequence[Batch]
    fitness: Fitness
    scoring: Scoring = field(default_factory=Scoring)
    objective: str = "fitness"
    also: Mapping[str, Callable[[Subnet], float]] = field(default_factory=dict)
    worker: str = field(default="serial")
    training: Training | None = None

    def with_scoring(self, **changes: Any) -> Scorer:
        """A scorer with other settings, which has cached nothing yet."""
        return replace(self, scoring=replace(self.scoring, **changes))

    @cached_property
    def deployed_norms(self) -> WrittenStatistics:
        """What settles the batch norms of deployed networks."""
        return POLICIES[self.scoring.batch_norms].deployed()(self.bank.model, self.calibrate)

    @cached_property
    def stage(self) -> Stage:
        """Where scores are taken."""
        return Stage(self.bank, self.calibrate, self.select, self.scoring)

    @cached_property
    def trainer(self) -> NetworkTrainer:
        """What trains networks, where they are trained."""
        assert self.training is not None
        return self.training.trainer(self.scoring.reuse_bytes)

    def prepare(self) -> None:
        """Makes now what candidates share, so that the first one takes no longer than those after it."""
        if self.training is None:
            self.stage.prepare()

    def subnet(self, candidate: Candidate) -> Subnet:
        """What a candidate keeps. SpaceError for one that is not of the space."""
        self.space.check(candidate)
        return self.bank.subnet(self.space.counts(candidate))

    def network(self, candidate: Candidate) -> nn.Module:
        """The small network of a candidate as it would be deployed without training or fit, batch norms settled."""
        return self.build(self.subnet(candidate))

    def build(self, subnet: Subnet) -> nn.Module:
        """The same for a subnet, whose counts need not be levels of the space."""
        network = self.bank.build(subnet)
        if not subnet.is_whole:  # the dense network keeps its own statistics
            self.deployed_norms.settle(network, subnet.indices)
        return network

    def steps(self, subnet: Subnet, fidelity: float = 1.0) -> int:
        """How many steps the network of a subnet is trained for; the dense one never is."""
        if self.training is None or subnet.is_whole:
            return 0
        return self.training.steps_at(fidelity)

    def trained(self, subnet: Subnet, steps: int) -> nn.Module:
        """The network of a subnet after so many steps, as it would be deployed."""
        key, begin = tuple(subnet.counts.items()), functools.partial(self.bank.build, subnet)
        with torch_threads(self.scoring.form.threads):
            return self.trainer.trained(key, begin, subnet.sparse, steps)

    def fully_trained(self, network: nn.Module, subnet: Subnet) -> nn.Module:
        """A copy of a network of a subnet, whatever its weights, after all steps."""
        with torch_threads(self.scoring.form.threads):
            return self.trainer.fully_trained(network, subnet.sparse)

    def measure(self, network: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
        """The fitness of a network, see `measured`."""
        return measured(network, batches, self.fitness, self.objective, self._intact)

    @property
    def remark(self) -> str:
        """What a user should know about how the fitness measures; empty while there is nothing."""
        return self._intact.remark

    @cached_property
    def _intact(self) -> Intact:
        """What keeps the batches as they are."""
        return Intact()

    @ending_forks()
    def score(self, candidate: Candidate) -> Evaluation:
        """One evaluation; whatever goes wrong with this candidate is part of it."""
        start = time.perf_counter()
        try:
            evaluation = self._measured(candidate)
        except KeyboardInterrupt:  # the user's, or a signal's
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
        also = {name: measurement(subnet) for name, measurement in self.also.items()}  # the same whatever the examples
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
        """The shares of the selection set to be measured one by one."""
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
    """What was raised, in words that fit into a line of a report."""
    try:
        said = str(error)
    except Exception:  # a user's __str__ may raise anything, too
        said = "its message cannot be printed"
    return f"{type(error).__name__}: {said[:CAUSE_LENGTH]}"


@ending_forks()
def measured(
    network: nn.Module, batches: Sequence[Batch], fitness: Fitness, objective: str, intact: Intact
) -> dict[str, float]:
    """The fitness of a network, checked: finite floats by name, a float under the name of the objective. PluginError
    otherwise.

    Every network meets the same random numbers, should the fitness draw any: its value is the same wherever and
    whenever it is measured, and what it draws elsewhere is left as it is. What a user's fitness writes to the batches
    `intact` undoes, and says so in its remark.
    """
    lending = contextlib.nullcontext(batches) if is_own(fitness) else intact.lending(batches)
    with evaluating(network), on_copies(network), torch.no_grad(), seeded(0), lending as lent:
        return check_values(fitness(network, lent), objective)


def check_values(result: object, objective: str) -> dict[str, float]:
    """A fitness' result as finite floats by name."""
    values = dict(result) if isinstance(result, Mapping) else {objective: result}
    if not values:
        raise PluginError("expected the fitness to return a float or a dict of floats, got an empty dict")
    if len({str(name) for name in values}) < len(values):
        raise PluginError(f"expected the fitness to report each name once, got {list(values)}")
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
        return tuple(batch._replace(dense=model(*copied(batch.inputs))) for batch in batches)
