"""The time and the memory that a run will take, by stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from autoprune.errors import ConfigError

ADVICE = {
    "dense outputs": "Give fewer selection examples or smaller batches.",
    "moments": "Give smaller batches, or search fewer of the widest units.",
    "order": "Search fewer of the widest units, or take another criterion such as l2.",
    "evaluations": "Take fewer workers, a smaller reuse_gib, fewer selection examples or smaller batches.",
    "fits": "Give fewer calibration examples, or take compensation: none.",
    "report": "Give fewer report examples or smaller batches.",
}


@dataclass(frozen=True)
class Stage:
    """What one stage of a run takes.

    Attributes:
        name: the name of the stage.
        seconds: processor seconds of all processes, or seconds of a device other than the CPU.
        duration: seconds of the clock, if all threads and workers have a processor of their own.
        memory: the bytes on the machine that the stage takes at most, besides those that the process holds already.
        device_memory: the same on a device with memory of its own.
    """

    name: str
    seconds: float
    duration: float
    memory: int = 0
    device_memory: int = 0


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
        stages: the stages in their order.
        workers: the number of workers that score candidates.
        threads: the number of threads of this process.
        example_seconds: what an example takes in the dense network, and in one with half of each unit.
        held: the bytes that the process holds already.
        available: the bytes that can still be allocated on the machine.
        device_available: the same on a device with memory of its own; None if there is none.
        spilled: the bytes that fits put on disk.
        disk: the free bytes there.
        front_size: the largest number of networks of the front, the job's or one of FRONT_SIZES.
        notes: sentences on what the run does, or could do, to take less time.
    """

    stages: tuple[Stage, ...]
    workers: int
    threads: int
    example_seconds: tuple[float, float]
    held: int
    available: int
    device_available: int | None
    spilled: int
    disk: int
    front_size: int
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def duration(self) -> float:
        return sum(stage.duration for stage in self.stages)

    @property
    def problems(self) -> list[str]:
        """A sentence for each stage that the memory or the disk will not hold."""
        return [*self._short_of_memory(), *self._short_of_disk()]

    def _short_of_memory(self) -> Iterator[str]:
        for stage in self.stages:
            places = [("the machine", stage.memory, self.available)]
            if self.device_available is not None:
                places.append(("the device", stage.device_memory, self.device_available))
            for place, needed, available in places:
                if needed > available:
                    yield (
                        f"{stage.name}: expected {_size(needed)} of memory on {place} for this stage, "
                        f"{_size(available)} are available. {ADVICE[stage.name]}"
                    )

    def _short_of_disk(self) -> Iterator[str]:
        if self.spilled > self.disk:
            yield (
                f"fits: expected {_size(self.spilled)} on the disk for the activations of the networks of the front, "
                f"there are {_size(self.disk)}. Give fewer calibration examples, or name a folder with more room in "
                "the variable TMPDIR."
            )

    def check(self) -> None:
        """Raises ConfigError, with what to change, if the memory or the disk will not hold the run."""
        if problems := self.problems:
            raise ConfigError(problems)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """A table of the stages, with a line about the whole run before it and the notes below it."""
        rows = [("stage", "processor time", "duration", "memory")]
        rows += [(s.name, time_text(s.seconds), time_text(s.duration), self._peak(s)) for s in self.stages]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([self._summary(), *lines, *self.notes])

    def _peak(self, stage: Stage) -> str:
        if self.device_available is not None:
            return f"{_size(self.held + stage.memory)}, device {_size(stage.device_memory)}"
        return _size(self.held + stage.memory)

    def _summary(self) -> str:
        workers = f"{self.workers} worker{'' if self.workers == 1 else 's'}"
        disk = f", {_size(self.spilled)} on disk" if self.spilled else ""
        return (
            f"forecast: about {time_text(self.duration)} with {workers} ({time_text(self.seconds)} of processor time), "
            f"at most {_size(self.held + max(stage.memory for stage in self.stages))} of memory{disk}; "
            f"{_size(self.available)} are available"
        )


def time_text(seconds: float) -> str:
    """A duration for readers, such as "12 min"."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _size(nbytes: int) -> str:
    return f"{nbytes / 2**30:.1f} GiB" if nbytes >= 2**30 else f"{nbytes / 2**20:.0f} MiB"
