"""The work and the memory of the fit of one network of the front, whose layers have the sizes of a typical one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from autoprune.prune.compensation.fit import START, has_constant
from autoprune.prune.compensation.flow import Layer
from autoprune.prune.compensation.reference import (
    GOAL_BYTES,
    Reference,
    Target,
    design_at,
    goal_bytes,
    outputs_of,
)
from autoprune.prune.compensation.walks import WHOLE_BYTES
from autoprune.prune.moments.regression import RECTIFIED_ROUNDS
from autoprune.run.forecast.bare import Read
from autoprune.run.forecast.rates import Rates

RIDGES_TRIED = 4  # of the five, a typical layer tries so many before its error rises
BACKWARD = 1.5  # a backward pass takes so many times longer for each multiplication than a forward pass
COPIES = 6  # of a layer's rows and targets, which a fit holds at once
TAPE = 16  # inputs, outputs and hidden activations that a joint fit holds at once, as multiples of its examples


@dataclass(frozen=True)
class _Size:
    """The size of a layer's fit: groups, rows, columns, outputs of a group, and rows of one example."""

    groups: int
    rows: int
    columns: int
    outputs: int
    places: float

    @property
    def macs(self) -> float:
        """The multiplications of the layer for one example."""
        return self.groups * self.places * self.columns * self.outputs

    @property
    def nbytes(self) -> int:
        """The memory of the rows and targets with their copies, and of the factors."""
        width = self.groups * (self.columns + self.outputs)
        return 4 * COPIES * self.rows * width + 24 * self.groups * self.columns**2


class Fits:
    """The fit of one network.

    Args:
        reference: the dense network with a few examples.
        layers: the layers of the network that is fitted, by name.
        reads: what they read.
        examples: the number of calibration examples.
        pass_seconds: what an example takes in the dense network and in this one.
    """

    def __init__(
        self,
        reference: Reference,
        layers: Mapping[str, Layer],
        reads: Mapping[str, Read],
        examples: int,
        pass_seconds: tuple[float, float],
    ) -> None:
        self._reference, self._examples = reference, examples
        self._dense_seconds, self._seconds = pass_seconds
        self._layers = {name: layer for name, layer in layers.items() if name in reference.layers and name in reads}
        self._sizes = {name: self._size(name, reads[name]) for name in self._layers}

    def seconds(self, networks: int, processes: int, rates: Rates, on_cpu: Rates) -> float:
        """The seconds of both passes, of the regressions and of the joint fits, for so many networks in all processes.

        Each process runs the dense network once if the targets can be kept.
        """
        dense = min(networks, processes) if self.goal_bytes else networks
        alone = sum(_regression(size, self._target(name), rates, on_cpu) for name, size in self._sizes.items())
        together = sum(self._joint(*pair, rates, on_cpu) for pair in self._pairs())
        one = self._examples * self._seconds + alone + together
        return dense * self._examples * self._dense_seconds + networks * one

    @property
    def goal_bytes(self) -> int:
        """The dense network's targets, which are kept for further networks; 0 if they are too large to be kept."""
        found = 0
        for name, size in self._sizes.items():
            outputs, most = outputs_of(self._reference.linear[name]), self._target(name).most_rows
            found += goal_bytes(size.places * self._examples, outputs, most, self._reference.effort)
        return found if found <= GOAL_BYTES else 0

    @property
    def kept_bytes(self) -> int:
        """The activations of paused passes: in memory, in half precision, or on disk, where they take no memory."""
        shares = {"here": 1.0, "half precision": 0.5}
        return int(shares.get(self._reference.place(self.held_bytes), 0.0) * self.held_bytes)

    @property
    def spilled_bytes(self) -> int:
        """The activations of paused passes on disk."""
        return self.held_bytes if self._reference.place(self.held_bytes) == "disk" else 0

    @property
    def held_bytes(self) -> int:
        return 2 * self._reference.live_bytes * self._examples

    @property
    def layer_bytes(self) -> int:
        """The memory of the largest regression and joint fit."""
        joint = (TAPE * min(WHOLE_BYTES, self._taken(second) * self._width(second)) for _, second in self._pairs())
        return max((size.nbytes for size in self._sizes.values()), default=0) + int(max(joint, default=0))

    def _size(self, name: str, read: Read) -> _Size:
        layer = self._layers[name]
        design = design_at(layer)
        places = design.count(read.x) / read.examples
        outputs = outputs_of(layer) // design.groups
        rows = min(self._target(name).most_rows, math.ceil(places * self._examples))
        return _Size(design.groups, rows, design.columns, outputs, places)

    def _target(self, name: str) -> Target:
        return self._reference.layers[name]

    def _pairs(self) -> list[tuple[str, str]]:
        """The layers that are fitted together."""
        targets = {name: self._target(name) for name in self._layers}
        named = ((target.feeder, name) for name, target in targets.items() if target.read_once or not target.summed)
        able = {name for name, layer in self._layers.items() if has_constant(layer)}
        return [(feeder, name) for feeder, name in named if feeder in able and name in able]

    def _width(self, name: str) -> float:
        """The bytes of one example's target of a pair that ends with this layer."""
        size = self._sizes[name]
        return 4 * size.places * outputs_of(self._reference.linear[name])

    def _taken(self, name: str) -> float:
        """The examples that the joint fit of this layer takes."""
        return min(
            self._examples,
            self._reference.effort.whole_rows / self._sizes[name].places,
            WHOLE_BYTES / self._width(name),
        )

    def _joint(self, first: str, second: str, rates: Rates, on_cpu: Rates) -> float:
        """A regression to start from, and conjugate gradients: a forward pass, a backward pass, and divisions each."""
        one, two = self._sizes[first], self._sizes[second]
        taken, iterations = self._taken(second), self._reference.effort.iterations
        forward = one.macs + 2 * two.macs
        passes = iterations * forward + BACKWARD * (iterations + 1) * forward + 4 * (one.macs + two.macs)
        divided = sum(size.groups * size.columns**2 * size.outputs for size in (one, two))
        start = _regression(replace(two, rows=int(taken * two.places / START)), self._target(second), rates, on_cpu)
        return start + taken * passes * self._mac_seconds + on_cpu.products((iterations + 1) * divided, torch.float64)

    @property
    def _mac_seconds(self) -> float:
        """What a multiplication takes in a pass through the network."""
        return self._seconds / max(1.0, sum(size.macs for size in self._sizes.values()))


def _regression(size: _Size, target: Target, rates: Rates, on_cpu: Rates) -> float:
    """The seconds of one layer's regression and of the choice of its ridge."""
    square, outer = size.columns**2, size.columns * size.outputs
    rounds = 1 + (RECTIFIED_ROUNDS if target.rectifier is not None else 0)
    products = size.rows * (square + outer * (2 * rounds + 1 + RIDGES_TRIED / 5))
    solved = square * size.columns / 6
    single = RIDGES_TRIED * (solved + square * size.outputs)
    factored = solved + rounds * square * size.outputs
    moved = size.rows * (COPIES * size.columns + 2 * rounds * size.outputs)
    work = rates.products(products) + on_cpu.products(single) + on_cpu.factor * factored + rates.move * moved
    return size.groups * work
