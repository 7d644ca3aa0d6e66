"""Sequential compensation: one pass through a pruned network that fits every layer to the dense network's outputs.

Examples go through the dense and the pruned network in chunks, side by side: every pass pauses before a layer until
all chunks have come there. Before a layer runs, its weights are solved for: an affine ridge regression from the layer's
input *in the pruned network*, errors of earlier layers included, to the dense network's output at the kept channels;
after its batch norm, if it has one, which absorbs the constant. A layer whose output is added to a shortcut is fitted
to the dense network's sum less the pruned network's shortcut, so that it also repairs the shortcut. Where the residual
branches behind it are removed, the sum is that behind them: the layer takes up what is linear in them. Batch norms that
belong to no fitted layer are re-estimated, anchored to the dense network's own statistics. The classifier is a layer
like any other: its target is the dense logits. No labels and no gradients.

Only what the paused passes still need is kept: in memory, in half precision where that would be too much, or on disk.
A fifth of the examples is held out from each fit to choose its ridge; a layer keeps the weights that the bank gave it
where no fit is better on them.

Least-squares repair of layers one after the other is He, Zhang, Sun 2017 (https://arxiv.org/abs/1707.06168, section
3.2) and, with the pruned network's own inputs, Zhang, Zou, He, Sun 2015 (https://arxiv.org/abs/1505.06798, section
3.3). Departures: the target is the residual sum, producers are refitted too and take a following ReLU into account, the
prior of the ridge is the weight that the bank has already compensated, and two layers with only a ReLU between them are
finally fitted together (compensation.joint). In a weight with zeros each output is solved for on its remaining columns.

The sum behind removed branches as the target is ReplaceMe, Shopkhoev et al. 2025 (https://arxiv.org/abs/2505.02819,
section 2.2). Departure: they fit a matrix by which the layer's outputs are multiplied; all weights of the layer on its
inputs have more freedom.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from autoprune.errors import DataError
from autoprune.prune.compensation.activations import OnDisk, PutAway, in_half_precision, in_host_memory
from autoprune.prune.compensation.choice import Sample
from autoprune.prune.compensation.fit import Fit, LayerFit, has_constant
from autoprune.prune.compensation.flow import Layer
from autoprune.prune.compensation.reference import Batches, Reference, Target, behind_gaps, design_at, linear_layers
from autoprune.prune.compensation.walks import Chunk, PrunedWalks, pooled, side_by_side
from autoprune.prune.devices.halving import halving
from autoprune.prune.modules.batch_norms import NormStatistics, kept_channels, tracked_norms
from autoprune.prune.modules.borrowed import evaluating, without_tf32
from autoprune.prune.modules.copying import cloned, named_tensors
from autoprune.prune.moments.regression import factor_bytes
from autoprune.prune.structure.structure import Structure
from autoprune.prune.surgery.surgery import Indices

FACTOR_BYTES = 2 << 30  # limit on the factors of one weight, of which one with zeros has one per output


@dataclass
class Compensation:
    """The result of a pass.

    Attributes:
        fits: what became of each fitted layer, by name.
        untouched: the reason for each layer that was not fitted.
        examples: the number of calibration examples that were used.
        mimic_steps: the number of steps of mimicking after the fit.
    """

    fits: dict[str, LayerFit] = field(default_factory=dict)
    untouched: dict[str, str] = field(default_factory=dict)
    examples: int = 0
    mimic_steps: int = 0

    @property
    def unexplained(self) -> dict[str, float]:
        """For each fitted layer, the share of its target's variance that is left unexplained on held-out examples."""
        return {name: fit.unexplained for name, fit in self.fits.items()}

    def to_json(self) -> dict[str, Any]:
        """The result as JSON: by layer the unexplained share, the ridge (None if no fit was kept), rows and columns."""
        return {
            "examples": self.examples,
            "unexplained": self.unexplained,
            "ridge": {name: fit.ridge if fit.kept else None for name, fit in self.fits.items()},
            "rows": {name: fit.rows for name, fit in self.fits.items()},
            "columns": {name: fit.columns for name, fit in self.fits.items()},
            "untouched": self.untouched,
            **({"mimic_steps": self.mimic_steps} if self.mimic_steps else {}),
        }


def compensate(
    network: nn.Module,
    structure: Structure,
    reference: Reference,
    indices: Indices,
    *,
    sparse: Collection[str] = (),
    jointly: bool = True,
    kept_bytes: int | None = None,
    spill: Path | None = None,
) -> Compensation:
    """Fits the layers of a pruned network, in place, in the order in which they run.

    Where a device runs out of memory, the fit starts again with smaller chunks of examples, and keeps no activations on
    the device between them.

    Args:
        network: the small network, with the weights that are the prior (the bank's).
        structure: the dense network's structure.
        reference: the dense network it was made from, and the examples.
        indices: the indices of the dense network's tensors that it keeps.
        sparse: names of the network's weights whose zeros stay.
        jointly: whether two layers with only a ReLU between them are finally fitted together; takes half of the time.
        kept_bytes: the largest size of activations that are kept in memory; by default 2 GiB, and on a device with
            memory of its own half of what is free there. Up to twice as much is kept in half precision, and more on
            disk; what is too large for a device is kept in the machine's memory if that has enough, else on disk.
        spill: an existing folder for activations on disk; None for the system's temporary one.

    Returns:
        The fitted and the untouched layers.

    Raises:
        DataError: the disk has no room for the activations.
        DeviceMemoryError: the device has too little memory for a pass of one example.
    """
    own = named_tensors(network)
    before = cloned(own)

    def attempt(chunks: Batches) -> Compensation:
        first = chunks is reference.chunks
        if not first:
            with torch.no_grad():
                for name, tensor in own.items():
                    tensor.copy_(before[name])
        keeping = _keeping(reference, kept_bytes if first else 0, spill)
        return _compensated(network, structure, reference.in_chunks(chunks), indices, keeping, sparse, jointly)

    with without_tf32():
        return halving(attempt, reference.chunks, stage="the fit of a network of the front")


def _compensated(
    network: nn.Module,
    structure: Structure,
    reference: Reference,
    indices: Indices,
    keeping: contextlib.AbstractContextManager[PutAway | None],
    sparse: Collection[str],
    jointly: bool,
) -> Compensation:
    """Fits the layers of a network whose passes keep their activations as said while they are paused."""
    layers, untouched = linear_layers(network, structure)
    behind = behind_gaps(reference.layers, [*layers, *untouched])
    stays = {name: _stays(layer) for name, layer in layers.items() if f"{name}.weight" in sparse}
    large = {name: reason for name, layer in layers.items() if (reason := _too_large(layer, stays.get(name)))}
    layers = {name: layer for name, layer in layers.items() if name in reference.layers and name not in large}
    feeders = _feeders(layers, reference.layers) if jointly else {}
    pruned = PrunedWalks(layers, tracked_norms(network), reference.layers, feeders, behind)
    with (
        keeping as put_away,
        evaluating(network),
        side_by_side(reference, network, pruned, put_away) as chunks,
    ):
        run = _Run(reference, pruned, chunks, indices, stays)
        run.finish()
    run.result.untouched.update({**untouched, **reference.untouched, **large, **run.result.untouched})
    return run.result


@contextlib.contextmanager
def _keeping(reference: Reference, limit: int | None, spill: Path | None) -> Iterator[PutAway | None]:
    """How activations are kept while passes are paused: at most `limit` bytes where they are."""
    size, ways = reference.held_bytes, {"half precision": in_half_precision, "host memory": in_host_memory}
    place = reference.place(size, limit)
    if place != "disk":
        yield ways.get(place)
        return
    limit = reference.kept_limit if limit is None else limit
    with tempfile.TemporaryDirectory(dir=spill) as folder:
        free = shutil.disk_usage(folder).free
        if free < size:
            raise DataError(
                f"expected {size / 2**30:.1f} GiB on the disk of {folder!r} for activations of the networks of the "
                f"front, of which {limit / 2**30:.1f} GiB fit into memory, got {free / 2**30:.1f} GiB. Give fewer "
                "calibration examples or, in the environment variable TMPDIR, another folder."
            )
        yield OnDisk(Path(folder))


def _stays(layer: Layer) -> torch.Tensor:
    """(g, o, k) booleans, True for the entries of a layer's weight that are not 0."""
    return design_at(layer).flat(cast(torch.Tensor, layer.module.weight)).detach().cpu() != 0


def _too_large(layer: Layer, stays: torch.Tensor | None) -> str:
    """Why the factors of a layer do not fit into memory; empty if they do."""
    design = design_at(layer)
    size = 8 * design.groups * design.columns**2 if stays is None else factor_bytes(stays)
    of_what = "the factor" if stays is None else "factors for each"
    limit = f"of its outputs would take {size / 2**30:.1f} GiB, the limit is {FACTOR_BYTES >> 30}"
    return f"{of_what} {limit}" if size > FACTOR_BYTES else ""


def _feeders(layers: Mapping[str, Layer], targets: Mapping[str, Target]) -> dict[str, str]:
    """The feeder of each layer that is fitted jointly; a layer whose output is read before an addition has none."""
    able = {name for name, layer in layers.items() if has_constant(layer)}
    found = {name: target.feeder for name, target in targets.items() if target.read_once or not target.summed}
    return {name: feeder for name, feeder in found.items() if feeder in able and name in able}


class _Run:
    """All chunks of examples on their way through both networks.

    Args:
        reference: the dense network and the examples.
        pruned: follows the passes through the pruned network.
        chunks: the examples, each chunk with a pass through both networks.
        indices: the indices of the dense network's tensors that the pruned one keeps.
        stays: (g, o, k) booleans of the entries that stay, for weights with zeros.
    """

    def __init__(
        self,
        reference: Reference,
        pruned: PrunedWalks,
        chunks: Sequence[Chunk],
        indices: Indices,
        stays: Mapping[str, torch.Tensor],
    ) -> None:
        self.reference, self.pruned, self.chunks = reference, pruned, chunks
        self.indices, self.stays = indices, stays
        self.dense = named_tensors(reference.model)
        self.result = Compensation(examples=reference.examples)
        self.fits: dict[str, Fit] = {}

    def finish(self) -> None:
        """Goes through the networks, and fits a layer whenever all chunks have come to it."""
        moving = self.chunks
        while moving:
            for chunk in moving:
                with chunk.there():
                    self._forward(chunk)
            waiting = [chunk for chunk in self.chunks if chunk.place is not None]
            moving = [chunk for chunk in waiting if chunk.place == waiting[0].place]
            if moving:
                self._settle(moving, together=len(moving) == len(self.chunks))

    def _forward(self, chunk: Chunk) -> None:
        """Lets the pruned network run to its next pause, and takes what is needed there."""
        event = chunk.resume(self._answer(chunk))
        if event is None:
            return
        if event.is_norm:
            chunk.take_norms(event.name, event.x)
        else:
            fit = self._fit(event.name, event.x.device)
            chunk.take_goal(fit, self.reference.effort)
            if fit.feeder is None:
                chunk.take_rows(fit, event.x)

    def _answer(self, chunk: Chunk) -> torch.Tensor | None:
        """What the pass goes on with: the layer's input, or its output where that is added to a shortcut."""
        event = chunk.event
        if event is None or event.is_norm:
            return None
        fit = self.fits[event.name]
        x = chunk.input_of(fit)
        return x if event.shortcut is None else chunk.owned(fit(x))

    def _fit(self, name: str, device: torch.device) -> Fit:
        if name not in self.fits:
            layer = self.pruned.layers[name]
            design, target = design_at(layer), self.reference.layers[name]
            kept = self.indices.get(f"{name}.weight", {}).get(1 if design.inputs_first else 0)
            index = None if kept is None else torch.from_numpy(kept).to(device)
            feeder = self.fits.get(self.pruned.feeders.get(name, ""))
            feeds = name in self.pruned.feeders.values()
            goal = self.pruned.behind.get(name, name)
            self.fits[name] = Fit(layer, design, target, goal, index, feeder, feeds, self.stays.get(name))
        return self.fits[name]

    def _settle(self, chunks: Sequence[Chunk], *, together: bool) -> None:
        """Solves for what the chunks are waiting for, if all of them are."""
        event = chunks[0].event
        assert event is not None, "chunks that wait have come to something"
        if not together:
            self.result.untouched[event.name] = "it is not called, or not at the same point, for all examples"
        elif event.is_norm:
            self._estimate(event.name)
        elif lacking := next((chunk.lacking for chunk in chunks if chunk.lacking), ""):
            self.result.untouched[event.name] = lacking
        else:
            self._solve(self.fits[event.name])

    def _solve(self, fit: Fit) -> None:
        """Solves for a layer's weights, and its feeder's, and writes them."""
        name = fit.layer.name
        try:
            if fit.feeder is None or self._solve_with_feeder(fit, fit.feeder):
                sample = self._sample()
                if not sample.suffices:
                    self.result.untouched[name] = (
                        f"its input has {len(sample.held)} rows in all examples, of which some have to be held out"
                    )
                    return
                fit.solve(sample)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]  # torch forgets to export it
            self.result.untouched[name] = f"its regression cannot be solved: {error}"
        else:
            assert fit.result, "a solution has a result"
            self.result.fits[name] = fit.result
        finally:
            fit.let_go()

    def _sample(self) -> Sample:
        """The rows of all chunks, which no longer keep them."""
        given = [chunk.give_sample() for chunk in self.chunks]
        return Sample.joined([sample for sample in given if sample])

    def _solve_with_feeder(self, fit: Fit, feeder: Fit) -> bool:
        """Fits both layers together, and takes the rows that the second one then has; False if it is right already."""
        examples = [part for chunk in self.chunks for part in chunk.examples]
        if feeder.result and not fit.solve_with_feeder(feeder, examples, self.reference.effort.iterations):
            return False
        for chunk in self.chunks:
            with chunk.there():
                chunk.take_rows(fit, chunk.input_of(fit))
        return True

    def _estimate(self, name: str) -> None:
        """Re-estimates a batch norm that no fit has written, anchored to the dense network's own statistics."""
        norm, kept = self.pruned.norms[name], kept_channels(self.indices, name)
        mean, variance = (self.dense[f"{name}.running_{what}"].cpu().double() for what in ("mean", "var"))
        here, dense = zip(*(chunk.norms for chunk in self.chunks if chunk.norms), strict=True)
        if None in dense:
            self.result.untouched[name] = "the dense network does not call it at this point"
            return
        own, estimated = NormStatistics(mean, variance).take(kept), pooled(dense).take(kept)
        pooled(here).anchored(own, estimated, norm.eps).write(norm)
