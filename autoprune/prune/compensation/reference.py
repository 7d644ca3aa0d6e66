"""The dense network and the calibration examples that pruned networks are fitted to."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.core.cache import ByteCache
from autoprune.errors import DataError
from autoprune.prune.compensation.activations import Activations
from autoprune.prune.compensation.flow import Following, Layer, OutputMark, OutputStage
from autoprune.prune.devices.memory import device_of, free_bytes, machine_bytes
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.moments.design import Design, design_of
from autoprune.prune.moments.rectifier import Rectifier
from autoprune.prune.passes.containers import copied
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import rebuild

ROW_BYTES = 1 << 27  # limit on one layer's rows and outputs together, unless a column would have few rows
ROWS_A_COLUMN = 4  # number of rows that are kept for each column whatever they take
CHUNK_BYTES = 1 << 27  # size of what a pass through a network holds at once
LIVE = 6  # number of largest activations that are alive at once, at most
MOST_CHUNKS = 32  # each has a thread for the dense network and one for the pruned one
KEPT_BYTES = 2 << 30  # limit on the activations of all paused passes in the machine's memory
KEPT_SHARE = 0.5  # share of a device's free memory that they may take; share of the machine's for those of a device
GOAL_BYTES = 1 << 30  # targets of all layers that fit into this are kept for further networks
FEW = 3  # number of examples of the pass that tells what there is
Batches = Sequence[tuple[torch.Tensor, ...]]
Place = Literal["here", "half precision", "host memory", "disk"]
Goals = ByteCache[tuple[str, str, int], Any]


@dataclass(frozen=True)
class Effort:
    """The amount of data and work of a compensation.

    Attributes:
        rows: the largest number of a layer's rows for its own fit, drawn from all examples.
        whole_rows: the number of rows, of whole examples, for joint fits.
        iterations: the number of conjugate gradient iterations of a joint fit.
    """

    rows: int
    whole_rows: int
    iterations: int


_SEQUENTIAL = Effort(50_000, 100_000, 10)
EFFORTS = {"sequential": _SEQUENTIAL, "thorough": Effort(100_000, 250_000, 20), "mimic": _SEQUENTIAL}


@dataclass(frozen=True)
class Target:
    """What is known of the output of one layer of the dense network, after its batch norm if it has one.

    If a later addition uses it as its last operand, the target is the sum (`summed`).

    Attributes:
        summed: see above.
        read_once: whether exactly one operator reads the output.
        rectifier: that operator if it is a rectifier, such as a ReLU.
        feeder: the layer whose rectified output this one reads, if nothing else reads that.
        most_rows: the largest number of rows for its own fit.
        onto: the layer whose sum it is added to, as in a chain of residual branches.
        since: the layers that run between both sums; the last one is the layer itself.
    """

    summed: bool
    read_once: bool
    rectifier: Rectifier | None
    feeder: str | None
    most_rows: int
    onto: str | None = None
    since: tuple[str, ...] = ()


def behind_gaps(targets: Mapping[str, Target], present: Collection[str]) -> dict[str, str]:
    """For each layer before removed branches, the last layer of these, whose sum in the dense network is its target.

    Args:
        targets: what is known of the dense network's layers.
        present: the layers of the pruned network.
    """
    here = frozenset(present)
    gone = {
        target.onto: name
        for name, target in targets.items()
        if target.onto is not None and here.isdisjoint(target.since)
    }
    found = {}
    for name in present:
        last = name
        while last in gone:
            last = gone[last]
        if last != name:
            found[name] = last
    return found


@dataclass(frozen=True)
class Reference:
    """A dense network, the examples that pruned networks are fitted with, and what is known of its layers.

    Attributes:
        model: the network, adapted so that its weights can be replaced. It shares them with the user's.
        chunks: the examples, in parts that go through the networks one after the other.
        linear: the layers that can be fitted, by name.
        layers: their targets.
        untouched: the reason for each layer without a target.
        live_bytes: what one example's pass holds at once.
        effort: the amount of data and work.
        goals: targets that are kept for further networks; none where all together would be too large.
    """

    model: nn.Module
    structure: Structure
    chunks: Batches
    linear: Mapping[str, Layer]
    layers: Mapping[str, Target]
    untouched: Mapping[str, str]
    live_bytes: int
    effort: Effort
    goals: Goals

    @property
    def examples(self) -> int:
        return sum(len(chunk[0]) for chunk in self.chunks)

    @property
    def held_bytes(self) -> int:
        """What the paused passes through both networks hold at once, at most."""
        return 2 * self.live_bytes * self.examples

    @property
    def kept_limit(self) -> int:
        """The largest size of activations that are kept where they are while passes are paused."""
        free = free_bytes(device_of(self.model))
        return KEPT_BYTES if free is None else int(KEPT_SHARE * free)

    def place(self, size: int, limit: int | None = None) -> Place:
        """Where activations of so many bytes are kept while passes are paused; at most `limit` bytes where they are."""
        apart = free_bytes(device_of(self.model)) is not None
        limit = self.kept_limit if limit is None else limit
        if size <= limit:
            return "here"
        if apart:
            return "host memory" if size <= KEPT_SHARE * machine_bytes() else "disk"
        return "half precision" if size <= 2 * limit else "disk"

    def in_chunks(self, chunks: Batches) -> Reference:
        """The same with the examples in other chunks."""
        return self if chunks is self.chunks else replace(self, chunks=chunks, goals=ByteCache(self.goals.limit))


def make_reference(
    model: nn.Module,
    structure: Structure,
    inputs: Batches,
    *,
    effort: Effort = EFFORTS["sequential"],
    chunk_bytes: int = CHUNK_BYTES,
) -> Reference:
    """Runs the dense network on a few examples to learn what its layers' outputs are used for.

    Args:
        model: the dense network.
        structure: its structure.
        inputs: positional arguments of the model, one batch each; all of these examples are used by a fit.
        effort: the amount of data and work of each fit.
        chunk_bytes: what a pass through a network may hold at once.

    Raises:
        DataError: there are no batches.
    """
    if not inputs:
        raise DataError("expected at least one batch to compensate with, got none. Check `calibrate`.")
    watched = rebuild(model, {}, {}, structure.adapted, share=True).eval()
    layers, untouched = linear_layers(watched, structure)
    few = min(FEW, len(inputs[0][0]))
    first, last = (
        _observed(watched, layers, tuple(x[:count] for x in inputs[0]), effort) for count in (max(1, few - 1), few)
    )
    untouched |= {name: "its module is not called" for name in layers if name not in last.seen} | last.refused
    untouched |= {
        name: "its rows do not belong to examples"
        for name, seen in first.seen.items()
        if name in last.seen and seen.entries * last.size != last.seen[name].entries * first.size
    }
    targets = {name: last.target(name) for name in last.seen if name not in untouched}
    examples = sum(len(batch[0]) for batch in inputs)
    size_of_goals = sum(
        goal_bytes(seen.rows * examples, seen.outputs, seen.most_rows, effort)
        for name, seen in last.seen.items()
        if name in targets
    )
    goals: Goals = ByteCache(GOAL_BYTES if size_of_goals <= GOAL_BYTES else 0)
    size = max(1, chunk_bytes // (LIVE * max(1, last.peak)))
    chunks = list(_chunks(inputs, max(size, -(-examples // MOST_CHUNKS))))
    return Reference(watched, structure, chunks, layers, targets, untouched, last.live, effort, goals)


def _chunks(inputs: Batches, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """The batches, those of the same shape joined, in parts of at most `size` examples."""
    together: list[tuple[torch.Tensor, ...]] = []
    for batch in (*inputs, ()):
        if together and (not batch or any(a.shape[1:] != b.shape[1:] for a, b in zip(batch, together[0], strict=True))):
            joined = [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*together, strict=True)]
            count = -(-len(joined[0]) // size)
            yield from zip(*(part.tensor_split(count) for part in joined), strict=True)
            together = []
        if batch:
            together.append(batch)


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
    if design.inputs_first and design.groups > 1:
        return "no least squares for a transposed convolution with groups"
    if owners > 1:
        return "its weight belongs to several modules"
    if norm is not None and getattr(norm, "weight", None) is None:
        return "its batch norm has no weight and bias that could take up the fit"
    return ""


@dataclass
class _Seen:
    """What a pass has shown of one layer."""

    entries: int  # the length of its input's first dimension
    rows: int  # number of rows of one example
    outputs: int
    most_rows: int
    summed: bool = False
    reads: Counter[OutputStage] = field(default_factory=Counter)
    reader: Rectifier | None = None  # the last rectifier that read the output
    onto: str | None = None
    since: tuple[str, ...] = ()

    @property
    def rectifier(self) -> Rectifier | None:
        """The rectifier that alone reads the output."""
        return self.reader if self.reads[OutputStage.FINAL] == 1 else None

    @property
    def feeds_one(self) -> bool:
        """Whether exactly one operator reads the rectified output."""
        return self.rectifier is not None and self.reads[OutputStage.RECTIFIED] == 1


class _Sum(NamedTuple):
    """A tensor that is the sum of a layer's output and a shortcut, and the number of layers that ran before."""

    tensor: weakref.ref[torch.Tensor]
    version: int
    layer: str
    entered: int


def _observed(
    model: nn.Module, layers: Mapping[str, Layer], inputs: tuple[torch.Tensor, ...], effort: Effort
) -> _Observer:
    observer = _Observer(layers, tracked_norms(model), len(inputs[0]), effort)
    with observer.hooked(), observer.following(observer):
        model(*copied(inputs))
    return observer


class _Observer(Following):
    """A pass of `size` examples through the dense network that shows what its layers' outputs are used for."""

    def __init__(self, layers: Mapping[str, Layer], norms: Mapping[str, _BatchNorm], size: int, effort: Effort) -> None:
        super().__init__(layers, norms)
        self.size, self.effort = size, effort
        self.activations = Activations()
        self.peak = self.live = 0  # bytes of one example: the largest activation, and all that is alive at once
        self.seen: dict[str, _Seen] = {}
        self.refused: dict[str, str] = {}
        self._feeders: dict[str, str] = {}
        self._sums: dict[int, _Sum] = {}  # by the id of the tensor
        self._adding: str | None = None
        self._entered: list[str] = []  # layers in the order in which they run

    def target(self, name: str) -> Target:
        seen, feeder = self.seen[name], self._feeders.get(name)
        known = feeder if feeder in self.seen and self.seen[feeder].feeds_one else None
        once = seen.reads[OutputStage.FINAL] == 1
        return Target(seen.summed, once, seen.rectifier, known, seen.most_rows, seen.onto, seen.since)

    def function(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Handles a call as others do, and remembers the sums of layers' outputs with other tensors."""
        output = super().function(func, args, kwargs)
        if self._adding is not None:
            own = _Sum(weakref.ref(output), output._version, self._adding, len(self._entered))
            self._sums[id(output)], self._adding = own, None
        return output

    def entered(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        design = design_at(layer)
        self.live = max(self.live, self.activations.nbytes // self.size)
        self.peak = max(self.peak, x.nbytes // self.size)
        self._entered.append(layer.name)
        if layer.name in self.seen:
            self.refused[layer.name] = "it is called more than once in a forward pass"
        elif design.count(x) % self.size or len(x) % self.size:
            self.refused[layer.name] = "its rows do not belong to examples"
        else:
            self.seen[layer.name] = _Seen(
                len(x), design.count(x) // self.size, outputs_of(layer), most_rows(layer, self.effort)
            )
            mark = self.mark_of(x)
            if mark is not None and mark.stage is OutputStage.RECTIFIED:
                self._feeders[layer.name] = mark.layer
        return x

    def produced(self, layer: Layer, y: torch.Tensor) -> None:
        self.peak = max(self.peak, y.nbytes // self.size)

    def added(self, layer: str, y: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        if layer in self.seen:
            seen, before = self.seen[layer], self._sums.get(id(other))
            seen.summed = True
            if before is not None and before.tensor() is other and before.version == other._version:
                seen.onto, seen.since = before.layer, tuple(self._entered[before.entered :])
            self._adding = layer
        return y

    def read(self, mark: OutputMark, rectifier: Rectifier | None) -> None:
        seen = self.seen.get(mark.layer)
        if seen is not None:
            seen.reads[mark.stage] += 1
            if rectifier is not None and mark.stage is OutputStage.FINAL:
                seen.reader = rectifier

    def norm_called(self, name: str, x: torch.Tensor) -> None:
        """Does nothing: statistics are those of all examples."""


def most_rows(layer: Layer, effort: Effort) -> int:
    """The largest number of rows for a layer's own fit."""
    design = design_at(layer)
    width = design.groups * design.columns + outputs_of(layer)
    return min(effort.rows, max(ROW_BYTES // (4 * width), ROWS_A_COLUMN * design.columns))


def goal_bytes(rows: float, outputs: int, most: int, effort: Effort) -> int:
    """The size of what is taken of a layer's output at most: of all its rows, `most` for its own fit.

    Args:
        rows: the number of rows of all examples.
        outputs: the number of outputs.
        most: the largest number of rows for the layer's own fit.
        effort: the amount of data and work.
    """
    return int(4 * outputs * (min(rows, most) + min(rows, effort.whole_rows)))


def outputs_of(layer: Layer) -> int:
    """The number of outputs of a layer."""
    return cast(torch.Tensor, layer.module.weight).numel() // design_at(layer).columns


def design_at(layer: Layer) -> Design:
    """The design of a layer, which linear_layers has found to have one."""
    design = design_of(layer.module)
    assert isinstance(design, Design), "linear_layers has only modules with a design"
    return design
