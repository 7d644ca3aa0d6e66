"""Prepares networks for scoring: batches in the form of the passes, and outputs of the dense network to reuse."""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import nn

from autoprune.core.cache import ByteCache
from autoprune.measure.batch import Batch, divided
from autoprune.measure.batch_norms.contract import BatchNorms, Inputs, WrittenStatistics
from autoprune.measure.batch_norms.policies import POLICIES
from autoprune.measure.following import Followed
from autoprune.measure.prefix import Cut, Prefixes
from autoprune.measure.settings import ScorerSettings
from autoprune.prune.bank.channels import Bank
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.devices.memory import device_of, free_bytes
from autoprune.prune.modules.batch_norms import NormStatistics, running_statistics, tracked_norms
from autoprune.prune.modules.borrowed import evaluating, seeded
from autoprune.prune.modules.skip import within
from autoprune.prune.passes.containers import copied
from autoprune.prune.passes.unwritten import unwritten

STATISTICS_BYTES = 64 << 20  # of the statistics that are kept of networks scored in parts
REUSE_SHARE = 0.25  # share of a device's free memory that outputs of the dense network may take
EXAMPLES = 2  # number of examples of the pass that records the order of calls
SHARE_ROUNDING = 1e-9  # rounding may put the product of a share and a count slightly above the intended count


@dataclass(eq=False)
class Stage:
    """Prepares networks for scoring: inside `with stage.on(subnet) as network` the network can be run on `batches`.

    With `reading`, nothing that gets a network writes to its parameters, so those that did not change are shared with
    the dense network, unless the network's own forward writes to them.
    """

    bank: Bank
    calibrate: Sequence[tuple[torch.Tensor, ...]]
    select: Sequence[Batch]
    scoring: ScorerSettings = field(default_factory=ScorerSettings)
    reading: bool = False

    @contextlib.contextmanager
    def on(self, subnet: Subnet) -> Iterator[nn.Module]:
        """Yields the network of a subnet in this form, with its batch norm statistics set."""
        with self.scoring.form.running(self._device):
            network = self.scoring.form.dress(self.bank.build(subnet, share=self._shares))
            if subnet.is_whole:
                yield network  # the dense network keeps its own statistics
                return
            cut = self._prefixes.cut(network, subnet.recipe)
            intact = [name for name in tracked_norms(network) if within(name, cut.modules)]
            settled = self._settled(network, subnet, intact)
            with self._followed.following(network), self._reused(network, cut), settled:
                yield network

    @contextlib.contextmanager
    def holding(self, network: nn.Module) -> Iterator[nn.Module]:
        """Yields a network that has its statistics, in this form."""
        with self.scoring.form.running(self._device):
            yield self.scoring.form.dress(network)

    def prepare(self) -> None:
        """Computes the values that candidates share, so that the first candidate takes no longer than later ones."""
        with self.scoring.form.running(self._device):
            _ = self._prefixes
            self.batch_norms.prepare()

    @cached_property
    def batches(self) -> Sequence[Batch]:
        """The selection batches in this form."""
        batches = self.scoring.form.batches(self.select)
        total = sum(batch.examples for batch in batches)
        ends = {math.ceil(share * total) for share in self.scoring.fidelities}
        return divided(batches, ends) if ends else batches

    def part(self, since: float, until: float) -> Sequence[Batch]:
        """The batches between two shares of the selection examples; a batch that contains a share lies before it."""
        ends = list(itertools.accumulate(batch.examples for batch in self.batches))
        first, last = (bisect.bisect_left(ends, share * ends[-1] * (1 - SHARE_ROUNDING)) for share in (since, until))
        return self.batches[first + (since > 0) : last + 1]

    @property
    def kept_bytes(self) -> int:
        """The number of bytes of the dense network's outputs that are kept now."""
        return self._prefixes.bytes

    def _reused(self, network: nn.Module, cut: Cut) -> contextlib.AbstractContextManager[None]:
        if not self.scoring.reuse_bytes or not self.batch_norms.reuses_prefix:
            return contextlib.nullcontext()
        return self._prefixes.reused(network, cut, self._followed)

    @contextlib.contextmanager
    def _settled(self, network: nn.Module, subnet: Subnet, intact: Collection[str]) -> Iterator[None]:
        """Sets the statistics of a network, without passes if a part of its score has set them before."""
        key = tuple(subnet.counts.items())
        if key in self._statistics:
            for name, norm in tracked_norms(network).items():
                self._statistics[key][name].write(norm)
            yield
            return
        with self.batch_norms.settled(network, subnet.indices, intact):
            if self.scoring.fidelities and isinstance(self.batch_norms, WrittenStatistics):
                found = running_statistics(network)
                size = sum(one.mean.nbytes + one.variance.nbytes for one in found.values())
                self._statistics.put(key, found, size)
            yield

    @cached_property
    def _statistics(self) -> ByteCache[Hashable, dict[str, NormStatistics]]:
        """The statistics of networks that may be scored on further examples."""
        return ByteCache(STATISTICS_BYTES)

    @property
    def _device(self) -> torch.device:
        return device_of(self.bank.model)

    @cached_property
    def _dense(self) -> nn.Module:
        return self.scoring.form.dress(self.bank.build(self.bank.subnet({}), share=self._shares))

    @cached_property
    def _shares(self) -> bool:
        """Whether networks share parameters with the dense network."""
        if not self.reading:
            return False
        network = self.bank.build(self.bank.subnet({}), share=True)
        with evaluating(network), torch.no_grad(), seeded(0), unwritten(network) as guard:
            network(*copied(self._example))
        return not guard.written

    @property
    def _example(self) -> tuple[torch.Tensor, ...]:
        return tuple(x[:EXAMPLES] for x in self.batches[0].inputs)

    @cached_property
    def _inputs(self) -> Sequence[tuple[torch.Tensor, ...]]:
        return self.scoring.form.inputs(self.calibrate)

    @cached_property
    def _followed(self) -> Followed:
        calibrate: dict[Hashable, Inputs] = {("calibrate", i): inputs for i, inputs in enumerate(self._inputs)}
        return Followed(calibrate | self._selected)

    @cached_property
    def _selected(self) -> dict[Hashable, Inputs]:
        return {("select", i): batch.inputs for i, batch in enumerate(self.batches)}

    @cached_property
    def _prefixes(self) -> Prefixes:
        free = free_bytes(self._device)
        limit = self.scoring.reuse_bytes if free is None else min(self.scoring.reuse_bytes, int(REUSE_SHARE * free))
        return Prefixes(self._dense, self.bank.subnet({}).recipe, self._example, limit)

    @cached_property
    def batch_norms(self) -> BatchNorms:
        """The batch norm policy of candidates."""
        return POLICIES[self.scoring.batch_norms](self._dense, self._inputs, self._selected)
