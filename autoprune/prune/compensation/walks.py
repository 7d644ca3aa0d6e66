"""Chunks of examples on their way through the dense and the pruned network, which wait for one another."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.prune.compensation.activations import Activations, PutAway, Shelf
from autoprune.prune.compensation.choice import Sample
from autoprune.prune.compensation.fit import Fit
from autoprune.prune.compensation.flow import Following, Layer, OutputMark
from autoprune.prune.compensation.joint import Examples
from autoprune.prune.compensation.pausing import PausingPass
from autoprune.prune.compensation.reference import Effort, Goals, Reference, Target
from autoprune.prune.modules.batch_norms import NormStatistics, tracked_norms
from autoprune.prune.moments.held_out import held_examples, held_rows
from autoprune.prune.moments.rectifier import Rectifier
from autoprune.prune.passes.containers import copied

WHOLE_BYTES = 1 << 28  # limit on the inputs and targets of the whole examples of a joint fit


class Event(NamedTuple):
    """Why a pass through the pruned network is paused.

    Attributes:
        name: the layer whose weights, or the batch norm whose statistics, are wanted.
        x: the layer's input, whose values are unknown if the layer has a feeder, or the batch norm's.
        shortcut: the tensor that the layer's output is added to, if any.
        is_norm: whether it is a batch norm.
    """

    name: str
    x: torch.Tensor
    shortcut: torch.Tensor | None = None
    is_norm: bool = False


class Produced(NamedTuple):
    """The output of a layer of the dense network, which is paused there; the sum if the layer's target is one."""

    name: str
    y: torch.Tensor


class Walk(PausingPass):
    """A pass of some examples through a network.

    Attributes:
        activations: the tensors that it has made.
        inputs: inputs of layers that have not been fitted, or whose weights another one waits for.
        norms: the statistics of the inputs of the batch norms that it has passed.
    """

    def __init__(
        self, following: Following, model: nn.Module, inputs: tuple[torch.Tensor, ...], activations: Activations
    ) -> None:
        super().__init__(self._walk)
        self._following, self._model, self._examples = following, model, inputs
        self.activations = activations
        self.inputs: dict[str, torch.Tensor] = {}
        self.norms: dict[str, Counted] = {}

    def _walk(self) -> None:
        with self._following.following(self):
            self._model(*copied(self._examples))


class PrunedWalks(Following):
    """The passes through the pruned network.

    A pass pauses before a layer that is fitted, or, if the layer's output is added to a shortcut, before the addition;
    and before a batch norm that belongs to no fitted layer.

    Args:
        layers: the layers that are fitted.
        norms: the batch norms.
        targets: what is known of the layers' targets.
        feeders: the layer with which each one is fitted jointly.
        behind: for each layer before removed branches, the layer of the dense network whose sum is its target.
    """

    def __init__(
        self,
        layers: Mapping[str, Layer],
        norms: Mapping[str, _BatchNorm],
        targets: Mapping[str, Target],
        feeders: Mapping[str, str],
        behind: Mapping[str, str],
    ) -> None:
        sums = {name for name in layers if targets[name].summed and targets[name].read_once}
        super().__init__(layers, norms, sums.union(feeders.values()))
        self.targets, self.feeders, self.behind = targets, feeders, behind
        self._written = {id(layer.norm) for layer in layers.values()}

    def estimates(self, norm: str) -> bool:
        """Whether a batch norm is re-estimated, since no fit writes it."""
        return norm in self.norms and id(self.norms[norm]) not in self._written

    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        walk = cast(Walk, self.walk)
        walk.inputs[layer.name] = x
        if self.targets[layer.name].summed:
            return x
        return cast(torch.Tensor, walk.pause(Event(layer.name, x)))

    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        walk = cast(Walk, self.walk)
        if layer not in walk.inputs:
            return y
        return cast(torch.Tensor, walk.pause(Event(layer, walk.inputs[layer], other)))

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        if self.estimates(name):
            cast(Walk, self.walk).pause(Event(name, x, is_norm=True))

    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        """Does nothing: the layer was fitted before."""

    def read(self, mark: OutputMark, rectifier: Rectifier | None) -> None:
        """Does nothing: readers are known from the dense network."""


class DenseWalks(Following):
    """The passes through the dense network, which pause at the targets of the layers that are fitted."""

    def __init__(self, layers: Mapping[str, Layer], norms: Mapping[str, _BatchNorm], pruned: PrunedWalks) -> None:
        super().__init__(layers, norms)
        self.pruned = pruned

    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        if not self.pruned.targets[layer.name].summed:
            cast(Walk, self.walk).pause(Produced(layer.name, y))

    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        cast(Walk, self.walk).pause(Produced(layer, y + other))
        return y

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        if self.pruned.estimates(name):
            cast(Walk, self.walk).norms[name] = Counted.of(x)

    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """Returns the input: the dense network stays as it is."""
        return x

    def read(self, mark: OutputMark, rectifier: Rectifier | None) -> None:
        """Does nothing: readers are known."""


class Counted(NamedTuple):
    """The statistics of a batch norm's input, of so many `values` a channel."""

    values: int
    statistics: NormStatistics

    @staticmethod
    def of(x: torch.Tensor) -> Counted:
        """Those over everything but channels, (c,) float32."""
        dims = [dim for dim in range(x.dim()) if dim != 1]
        variance, mean = torch.var_mean(x.float(), dim=dims, correction=0)
        return Counted(x.numel() // len(mean), NormStatistics(mean, variance))


def pooled(parts: Sequence[Counted]) -> NormStatistics:
    """The statistics of all parts together, float64 on the CPU."""
    means, variances = (
        torch.stack([getattr(part.statistics, kind) for part in parts]).cpu().double() for kind in ("mean", "variance")
    )
    count = sum(part.values for part in parts)
    shares = [part.values / count for part in parts]
    mean = sum((share * own for share, own in zip(shares, means, strict=True)), torch.zeros(()))
    spreads = variances + (means - mean).square()
    return NormStatistics(mean, sum((share * own for share, own in zip(shares, spreads, strict=True)), torch.zeros(())))


class _Drawn(NamedTuple):
    """The drawn rows of a layer's output in a chunk.

    Attributes:
        positions: (n,) their indices, rising.
        held: (n,) whether they are held out.
        goal: (g, n, o) what the layer is to return there.
    """

    positions: torch.Tensor
    held: torch.Tensor
    goal: torch.Tensor


class DenseGoal(NamedTuple):
    """What the dense network returns for a layer in a chunk, before channels are selected.

    Attributes:
        positions: (n,) the drawn rows, rising.
        held: (n,) whether they are held out.
        rows: (n, c) the outputs there.
        examples: the examples that are taken whole, rising.
        whole: the outputs for these.
        total: the number of all rows.
    """

    positions: torch.Tensor
    held: torch.Tensor
    rows: torch.Tensor
    examples: torch.Tensor
    whole: torch.Tensor
    total: int

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self if isinstance(part, torch.Tensor))


@dataclass
class Chunk:
    """Some of the examples, with a pass through each network.

    Attributes:
        pruned: the pass through the pruned network.
        dense: the pass through the dense network.
        first: the index of its first example among all.
        size: the number of its examples.
        total: the number of all examples.
        goals: what the dense network returns, by layer and first example, as far as it is kept for other networks.
        event: why the pass through the pruned network is paused; None after its end.
        lacking: why there is no target for the layer that is waited for.
        sample: rows and targets of the layer that is waited for.
        examples: whole examples for a joint fit with its feeder.
        norms: the statistics of the batch norm that is waited for, in the pruned and in the dense network.
    """

    pruned: Walk
    dense: Walk
    first: int
    size: int
    total: int
    goals: Goals
    event: Event | None = None
    lacking: str = ""
    sample: Sample | None = None
    examples: list[Examples] = field(default_factory=list)
    norms: tuple[Counted, Counted | None] | None = None
    _ahead: list[Produced] = field(default_factory=list)  # what the dense network has produced before it was wanted
    _drawn: _Drawn | None = None
    _input: torch.Tensor | None = None

    @property
    def place(self) -> tuple[str, bool] | None:
        """What the pass through the pruned network waits for; None after its end."""
        return None if self.event is None else (self.event.name, self.event.is_norm)

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Brings the tensors of both passes back inside."""
        walks = self.pruned, self.dense
        for walk in walks:
            walk.activations.come_back()
        try:
            yield
        finally:
            for walk in walks:
                walk.activations.leave()

    def resume(self, answer: torch.Tensor | None) -> Event | None:
        """Lets the pruned network run to its next pause."""
        self.event = self.sample = self.norms = self._drawn = self._input = None
        self.lacking = ""
        self.examples = []
        self.event = self.pruned.resume(answer)
        return self.event

    def take_norms(self, name: str, x: torch.Tensor) -> None:
        """Takes the statistics of a batch norm's input, in both networks."""
        while name not in self.dense.norms and (event := self.dense.resume()) is not None:
            self._ahead.append(event)
        self.norms = Counted.of(x), self.dense.norms.get(name)

    def take_goal(self, fit: Fit, effort: Effort) -> None:
        """Takes what the layer is to return, at drawn rows and, for a joint fit, for whole examples."""
        dense = self._dense_goal(fit, effort)
        if isinstance(dense, str):
            self.lacking = dense
            return
        if self.event is not None and fit.design.count(self.event.x) != dense.total:
            self.lacking = "positions are removed from its rows, so they are not those of the dense network"
            return
        shortcut = None if self.event is None else self.event.shortcut
        goal = fit.kept_of_rows(dense.rows)
        if shortcut is not None:
            goal = goal - fit.design.outputs(shortcut, dense.positions)
        self._drawn = _Drawn(dense.positions, dense.held, goal)
        if fit.feeder is not None:
            self._take_examples(fit, fit.feeder, dense, shortcut)

    def take_rows(self, fit: Fit, x: torch.Tensor) -> None:
        """Takes the layer's rows where its targets were taken."""
        if self._drawn is not None:
            positions, held, goal = self._drawn
            self.sample = Sample(fit.design.rows(x, positions), goal, held)

    def give_sample(self) -> Sample | None:
        """The rows and targets, which are no longer kept here."""
        sample, self.sample, self._drawn = self.sample, None, None
        return sample

    def input_of(self, fit: Fit) -> torch.Tensor:
        """The input of the layer that is waited for; behind a feeder that of its present weights."""
        if self._input is None:
            x = self.pruned.inputs.pop(fit.layer.name)
            if fit.feeder is not None:
                x = self.owned(fit.feeder.rectified(self.pruned.inputs.pop(fit.feeder.layer.name)))
            if fit.feeds:
                self.pruned.inputs[fit.layer.name] = x
            self._input = x
        return self._input

    def owned(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, which goes on in the pruned network."""
        return self.pruned.activations.own(tensor)

    def _dense_goal(self, fit: Fit, effort: Effort) -> DenseGoal | str:
        """What the dense network returns for the layer, from an earlier fit if it is kept, or why there is nothing."""
        key = fit.layer.name, fit.goal, self.first
        if key in self.goals:
            kept: DenseGoal = self.goals[key]
            return kept
        taken = self._of_dense(fit, effort)
        if isinstance(taken, DenseGoal):
            self.goals.put(key, taken, taken.nbytes)
        return taken

    def _of_dense(self, fit: Fit, effort: Effort) -> DenseGoal | str:
        """What the dense network returns for the layer, or why there is nothing to fit to."""
        y = next((event.y for event in iter(self._next_of_dense, None) if event.name == fit.goal), None)
        if y is None:
            return "the dense network calls it at another point"
        rows = fit.design.count_outputs(y)
        if rows % self.size or len(y) % self.size:
            return "its rows do not belong to examples"
        positions = self._positions(rows, fit.target.most_rows)
        chosen = torch.arange(0)
        if fit.target.feeder is not None:
            wanted = min(effort.whole_rows * self.size / rows, WHOLE_BYTES * self.size / y.nbytes)
            count = min(self.size, max(1, math.ceil(wanted * self.size / self.total)))
            chosen = torch.linspace(0, self.size - 1, count).long()
        whole = _entries(y, chosen, self.size)
        goal, held = fit.design.channels(y, positions), held_rows(positions, rows, self.size, self.first, self.total)
        return DenseGoal(positions, held, goal, chosen, whole, rows)

    def _next_of_dense(self) -> Produced | None:
        event: Produced | None = self._ahead.pop(0) if self._ahead else self.dense.resume()
        return event

    def _positions(self, rows: int, most: int) -> torch.Tensor:
        """The drawn rows: the chunk's share of a layer's largest number of rows."""
        count = min(rows, math.ceil(most * self.size / self.total))
        if count == rows:
            return torch.arange(rows)
        generator = torch.Generator().manual_seed(self.first)
        drawn: torch.Tensor = torch.unique(torch.randint(rows, (count,), generator=generator))
        return drawn

    def _take_examples(self, fit: Fit, feeder: Fit, dense: DenseGoal, shortcut: torch.Tensor | None) -> None:
        """Takes whole examples, those to fit to and those that are held out."""
        x = self.pruned.inputs[feeder.layer.name]
        out = held_examples(self.first + dense.examples, self.total)
        for held in (False, True):
            places = (out == held).nonzero().squeeze(1)
            if len(places):
                own = dense.examples[places]
                goal = fit.kept_channels(_entries(dense.whole, places, len(out))).float()
                goal = goal if shortcut is None else goal - _entries(shortcut, own, self.size).float()
                self.examples.append(Examples(_entries(x, own, self.size).float(), goal, held))


def _entries(x: torch.Tensor, examples: torch.Tensor, size: int) -> torch.Tensor:
    """The entries of some of `size` examples, each of which may be several entries, such as windows."""
    each = len(x) // size
    index = (examples[:, None] * each + torch.arange(each)).flatten()
    return x.index_select(0, index.to(x.device))


@contextlib.contextmanager
def side_by_side(
    reference: Reference, network: nn.Module, pruned: PrunedWalks, put_away: PutAway | None
) -> Iterator[list[Chunk]]:
    """The chunks at the start of both networks; inside, the passes run only when they are resumed.

    Args:
        reference: the dense network and the examples.
        network: the pruned network.
        pruned: follows the passes through it.
        put_away: how activations are kept while a pass is paused.
    """
    names = {*pruned.layers, *pruned.behind.values()}
    wanted = {name: layer for name, layer in reference.linear.items() if name in names}
    dense = DenseWalks(wanted, tracked_norms(reference.model), pruned)
    shelves: tuple[Shelf, Shelf] = {}, {}
    chunks, first = [], 0
    for inputs in reference.chunks:
        walks = [
            Walk(following, model, inputs, Activations(put_away, shelf))
            for following, model, shelf in zip((pruned, dense), (network, reference.model), shelves, strict=True)
        ]
        chunks.append(Chunk(walks[0], walks[1], first, len(inputs[0]), reference.examples, reference.goals))
        first += len(inputs[0])
    with torch.no_grad(), pruned.hooked(), dense.hooked(), pruned.own(), dense.own():
        try:
            yield chunks
        finally:
            for chunk in chunks:
                chunk.pruned.close()
                chunk.dense.close()
