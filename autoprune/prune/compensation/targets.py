"""The targets of a pruned network's layers: the outputs of the dense network's layers at a sample of places."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import DataError
from autoprune.prune.compensation.flow import RECTIFIERS, Following, Layer, OutputMark, OutputStage
from autoprune.prune.modules.batch_norms import NormStatistics, tracked_norms
from autoprune.prune.moments.design import Design, design_of
from autoprune.prune.passes.containers import copied
from autoprune.prune.passes.examples import first_examples
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild

ROW_BYTES = 1 << 28  # limit on one layer's rows and outputs together
MAX_FITTED_COLUMNS = 4608
LIMIT_BYTES = 4 << 30  # limit on activations in the pass through a pruned network, which runs all examples at once
LIVE = 6  # largest number of activations of the largest size that are alive at once
TargetInputs = Sequence[tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Effort:
    """The amount of data and work of a compensation.

    Attributes:
        rows: the largest number of a layer's rows for its own fit.
        whole_rows: the number of rows, of whole examples, for joint fits.
        iterations: the number of conjugate gradient iterations of a joint fit.
    """

    rows: int
    whole_rows: int
    iterations: int


EFFORTS = {"sequential": Effort(50_000, 100_000, 10), "thorough": Effort(100_000, 250_000, 20)}


@dataclass(frozen=True)
class Target:
    """The output of one layer of the dense network, after its batch norm if it has one.

    If the output is the later operand of an addition, the target is the sum.

    Attributes:
        positions: the sampled rows among all rows of all examples, ascending.
        rows: (n, c) outputs at these rows.
        whole: the complete outputs of the first examples.
        summed: whether the target is a sum.
        read_once: whether exactly one operator reads the output.
        rectified: whether that operator is a ReLU.
        feeder: the layer whose rectified output this layer reads, if no other operator reads it.
    """

    positions: torch.Tensor
    rows: torch.Tensor
    whole: torch.Tensor
    summed: bool
    read_once: bool
    rectified: bool
    feeder: str | None


@dataclass(frozen=True)
class Targets:
    """The targets of one dense network on one set of examples.

    Attributes:
        inputs: the examples.
        layers: targets by layer name.
        norms: the statistics of each batch norm on these examples.
        untouched: the reason for each layer without a target.
        peak_bytes: the size of a layer's largest input or output, for one example.
        effort: the amount of data and work.
    """

    inputs: TargetInputs
    layers: Mapping[str, Target]
    norms: Mapping[str, NormStatistics]
    untouched: Mapping[str, str]
    peak_bytes: int
    effort: Effort

    @property
    def examples(self) -> int:
        return sum(len(batch[0]) for batch in self.inputs)


def collect_targets(
    model: nn.Module,
    structure: Structure,
    inputs: TargetInputs,
    *,
    effort: Effort = EFFORTS["sequential"],
    limit_bytes: int = LIMIT_BYTES,
    seed: int = 0,
) -> Targets:
    """Runs the dense network once over examples and collects the targets of its layers.

    Args:
        model: the dense network.
        structure: its structure.
        inputs: batches of positional arguments of the model.
        effort: the amount of data and work.
        limit_bytes: the limit on activations in a pass through a pruned network, which runs all examples at once; only
            as many examples are used as fit.
        seed: the seed of the sample of rows.

    Raises:
        DataError: there are no batches.
    """
    if not inputs:
        raise DataError("expected at least one batch to compensate with, got none. Check `calibrate`.")
    watched = rebuild(model, {}, {}, structure.adapted, share=True).eval()
    layers, untouched = linear_layers(watched, structure)
    inputs = first_examples(inputs, max(1, limit_bytes // (LIVE * max(1, _peak_bytes(watched, layers, inputs[0])))))
    examples = sum(len(batch[0]) for batch in inputs)
    dense = _Dense(layers, tracked_norms(watched), examples, effort, seed)
    with dense.following():
        for batch in inputs:
            dense.starts(len(batch[0]))
            watched(*copied(batch))
            dense.ends()
    untouched |= {name: "its module is not called" for name in layers if name not in dense.kept} | dense.refused
    targets = {name: kept.finish(dense.feeders.get(name)) for name, kept in dense.kept.items() if name not in untouched}
    norms = {name: _statistics(*sums) for name, sums in dense.sums.items()}
    return Targets(inputs, targets, norms, untouched, dense.peak, effort)


def _peak_bytes(model: nn.Module, layers: Mapping[str, Layer], batch: tuple[torch.Tensor, ...]) -> int:
    """The size of a layer's largest input or output, for one example."""
    dense = _Dense(layers, {}, 1, EFFORTS["sequential"], 0)
    with dense.following():
        dense.starts(1)
        model(*copied(tuple(x[:1] for x in batch)))
    return dense.peak


def linear_layers(model: nn.Module, structure: Structure) -> tuple[dict[str, Layer], dict[str, str]]:
    """The layers that can be fitted, and the reason for each other module with a weight matrix."""
    owners: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    layers, reasons = {}, {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.dim() < 2 or isinstance(module, nn.Embedding | nn.EmbeddingBag):
            continue
        norm = model.get_submodule(structure.batch_norms[name]) if name in structure.batch_norms else None
        reason = _unfit(module, norm, owners[id(weight)])
        if reason:
            reasons[name] = reason
        else:
            layers[name] = Layer(name, module, norm if isinstance(norm, _BatchNorm) else None)
    return layers, reasons


def _unfit(module: nn.Module, norm: nn.Module | None, owners: int) -> str:
    design = design_of(module)
    if isinstance(design, str):
        return design
    if design.columns > MAX_FITTED_COLUMNS:
        return f"{design.columns} columns are more than the limit of {MAX_FITTED_COLUMNS}"
    if design.inputs_first and design.groups > 1:
        return "no least squares for a transposed convolution with groups"
    if owners > 1:
        return "its weight belongs to several modules"
    if norm is not None and getattr(norm, "weight", None) is None:
        return "its batch norm has no weight and bias that could take up the fit"
    return ""


@dataclass
class _Kept:
    """A target while it is collected batch by batch."""

    places: int  # rows of one example
    positions: torch.Tensor
    outputs: list[torch.Tensor] = field(default_factory=list)
    wholes: list[torch.Tensor] = field(default_factory=list)
    summed: bool = False
    reads: Counter[tuple[OutputStage, str]] = field(default_factory=Counter)  # of one batch, by stage and function

    def take(self, rows: torch.Tensor, whole: torch.Tensor, *, summed: bool = False) -> None:
        """Adds the part of the current batch; a sum replaces its operand."""
        if summed:
            self.outputs.pop()
            self.wholes.pop()
        self.summed = summed
        self.outputs.append(rows)
        self.wholes.append(whole)

    @property
    def rectified(self) -> bool:
        """Whether only a ReLU reads the output."""
        return self._readers(OutputStage.FINAL) == 1 and any(
            (OutputStage.FINAL, name) in self.reads for name in RECTIFIERS
        )

    @property
    def feeds_one(self) -> bool:
        """Whether exactly one operator reads the rectified output."""
        return self.rectified and self._readers(OutputStage.RECTIFIED) == 1

    def _readers(self, stage: OutputStage) -> int:
        return sum(count for (at, _), count in self.reads.items() if at is stage)

    def finish(self, feeder: str | None) -> Target:
        rows, whole, once = torch.cat(self.outputs), torch.cat(self.wholes), self._readers(OutputStage.FINAL) == 1
        return Target(self.positions, rows, whole, self.summed, once, self.rectified, feeder)


class _Dense(Following):
    """The pass through the dense network, which keeps outputs of layers and statistics of batch norms."""

    def __init__(
        self, layers: Mapping[str, Layer], norms: Mapping[str, _BatchNorm], examples: int, effort: Effort, seed: int
    ) -> None:
        super().__init__(layers, norms)
        self.examples, self.effort, self.seed = examples, effort, seed
        self.first = self.size = 0  # the first example and the size of the current batch
        self.peak = 0
        self.kept: dict[str, _Kept] = {}
        self.feeders: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.sums: dict[str, list[torch.Tensor]] = {}
        self._called: set[str] = set()

    def starts(self, size: int) -> None:
        """Called before a batch of `size` examples runs."""
        self.first, self.size = self.first + self.size, size
        self._called.clear()
        for kept in self.kept.values():
            kept.reads.clear()

    def ends(self) -> None:
        """Called after a batch has run."""
        self.feeders = {name: feeder for name, feeder in self.feeders.items() if self.kept[feeder].feeds_one}

    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        name = layer.name
        places, left = divmod(_design(layer).count(x), self.size)
        self.peak = max(self.peak, x.nbytes // self.size)
        if name in self._called:
            self.refused[name] = "it is called more than once in a forward pass"
        elif left or len(x) % self.size or (name in self.kept and self.kept[name].places != places):
            self.refused[name] = "its rows do not belong to examples"
        elif name not in self.kept:
            self.kept[name] = self._begin(layer, places)
            mark = self.mark_of(x)
            if mark is not None and mark.stage is OutputStage.RECTIFIED:
                self.feeders[name] = mark.layer
        self._called.add(name)
        return x

    def _begin(self, layer: Layer, places: int) -> _Kept:
        design, weight = _design(layer), cast(torch.Tensor, layer.module.weight)
        total, width = places * self.examples, design.groups * design.columns + weight.numel() // design.columns
        count = min(total, self.effort.rows, max(1, ROW_BYTES // (4 * width)))
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randint(total, (count,), generator=generator) if count < total else torch.arange(total)
        return _Kept(places, torch.unique(drawn))

    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        self.peak = max(self.peak, y.nbytes // self.size)
        self._take(layer, y)

    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        self._take(self.layers[layer], y + other, summed=True)
        return y

    def _take(self, layer: Layer, y: torch.Tensor, *, summed: bool = False) -> None:
        if layer.name in self.refused:
            return
        kept = self.kept[layer.name]
        begin, end = self.first * kept.places, (self.first + self.size) * kept.places
        here = kept.positions[(kept.positions >= begin) & (kept.positions < end)] - begin
        wanted = max(0, math.ceil(self.effort.whole_rows / kept.places) - self.first)
        whole = y[: wanted * (len(y) // self.size)]  # an example may be several entries, such as windows
        kept.take(in_channels(_design(layer).outputs(y, here)), whole.clone(), summed=summed)

    def read(self, mark: OutputMark, function: str) -> None:
        if mark.layer in self.kept:
            self.kept[mark.layer].reads[mark.stage, function] += 1

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        sums = self.sums.setdefault(name, [torch.zeros(()), torch.zeros(()), torch.zeros(())])
        seen = batch_statistics(x)
        mean, variance, count = seen.mean, seen.variance, x.numel() // len(seen.mean)
        for index, value in enumerate((torch.tensor(count), count * mean, count * (variance + mean.square()))):
            sums[index] = sums[index] + value


def batch_statistics(x: torch.Tensor) -> NormStatistics:
    """The (c,) mean and variance of a batch norm's input over all dimensions but channels, float64 on the CPU."""
    dims = [dim for dim in range(x.dim()) if dim != 1]
    variance, mean = torch.var_mean(x.float(), dim=dims, correction=0)
    return NormStatistics(mean.cpu().double(), variance.cpu().double())


def in_channels(grouped: torch.Tensor) -> torch.Tensor:
    """(n, c) rows from (g, n, c / g) rows."""
    return grouped.transpose(0, 1).flatten(1)


def _design(layer: Layer) -> Design:
    design = design_of(layer.module)
    assert isinstance(design, Design), "linear_layers has only modules with a design"
    return design


def _statistics(count: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> NormStatistics:
    mean = first / count
    return NormStatistics(mean, (second / count - mean.square()).clamp(min=0))
