"""What every method is given, and how what it returns is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from autoprune.data import Data, cifar10
from autoprune.measure.batch import Batch
from autoprune.prune.find import find_structure
from autoprune.prune.structure.structure import Structure
from autoprune.zoo import resnet20, resnet32

NETWORKS = {"resnet20": resnet20, "resnet32": resnet32}
T = TypeVar("T")
CALIBRATE, SELECT = 4000, 2000
STEPS = 10  # halvings of the interval of ratios: finer than a channel of the widest layer
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Setting:
    """A trained network and its images, all channels-last; the test images are in `data.report`."""

    model: nn.Module
    structure: Structure
    data: Data

    @property
    def calibrate(self) -> list[tuple[torch.Tensor, ...]]:
        return [batch.inputs for batch in self.data.calibrate]

    @property
    def inner(self) -> list[str]:
        """The units inside blocks, the channels of each block's first convolution: all that anyone prunes here."""
        return [unit.name for unit in self.structure.units if unit.name.endswith(".conv1")]


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and seconds of processor time."""

    wall_s: float = 0.0
    core_s: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall_s + other.wall_s, self.core_s + other.core_s)


@dataclass(frozen=True)
class Pruned:
    """What a method returns: the network, and the method in words.

    `shared` is what was spent once for all targets of a network, `earlier` the part of it that an earlier run spent.
    """

    network: nn.Module
    method: str
    shared: Spent = Spent()
    earlier: Spent = Spent()


def open_setting(network: str, data: str, models: str) -> Setting:
    """The named network with the weights in the folder `models`, and CIFAR-10 from the folder `data`."""
    model = NETWORKS[network](Path(models) / f"{network}_cifar10.pt").to(memory_format=torch.channels_last)
    images = cifar10(data, calibrate=CALIBRATE, select=SELECT, seed=0)
    sets = {name: tuple(map(channels_last, getattr(images, name))) for name in ("calibrate", "select", "report")}
    return Setting(model, find_structure(model, images.example), replace(images, **sets))


def channels_last(batch: Batch) -> Batch:
    return batch._replace(inputs=tuple(x.contiguous(memory_format=torch.channels_last) for x in batch.inputs))


def timed(run: Callable[[], T]) -> tuple[T, Spent]:
    wall, core = time.perf_counter(), time.process_time()
    result = run()
    return result, Spent(time.perf_counter() - wall, time.process_time() - core)


@torch.no_grad()
def accuracy(model: nn.Module, batches: Sequence[Batch]) -> float:
    """Share of the labelled images classified right, in eval mode."""
    model.eval()
    right = total = 0
    for batch in batches:
        assert batch.target is not None
        right += int((model(*batch.inputs).argmax(1) == batch.target).sum())
        total += len(batch.target)
    return right / total


def macs(model: nn.Module, example: tuple[torch.Tensor, ...]) -> int:
    """Multiply-accumulates of convolutions and matrix products of one forward pass, counted while it runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*example)
    return int(counter.get_total_flops()) // 2


def largest_within(make: Callable[[float], nn.Module], budget: float, example: tuple[torch.Tensor, ...]) -> nn.Module:
    """The network with the least ratio to remove, to 1/1024, that has at most so many multiply-accumulates."""
    keeps, removes = 0.0, 1.0
    best = None
    for _ in range(STEPS):
        ratio = (keeps + removes) / 2
        network = make(ratio)
        if macs(network, example) > budget:
            keeps = ratio
        else:
            removes, best = ratio, network
    if best is None:
        raise ValueError(f"no ratio to remove below 1 brings the MACs within {budget:.3g}")
    return best


def forget_peak() -> None:
    """Makes `peak_mb` begin anew; where the system offers no such thing it stays the peak since the start."""
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")


def peak_mb() -> float:
    """Largest resident memory of this process in MB (1e6 bytes), all it holds included."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6
