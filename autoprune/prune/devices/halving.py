"""Smaller batches where a device has too little memory for a pass."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

from autoprune.errors import DeviceMemoryError
from autoprune.prune.devices.memory import free_bytes, total_bytes

Batch = TypeVar("Batch")  # tensors in any nest of containers, of which the first is of examples
Result = TypeVar("Result")


ADVICE = "Take a device with more memory, end other processes on it, or set run.device: cpu."


def halving(attempt: Callable[[Sequence[Batch]], Result], batches: Sequence[Batch], *, stage: str) -> Result:
    """The result of an attempt with batches, which are halved as often as a device runs out of memory.

    Each attempt starts from the beginning, so it must leave nothing behind. Its result may depend on the sizes of
    batches only by rounding.

    Args:
        attempt: makes the result from batches.
        batches: the batches. Tensors of a batch with as many entries as its first one has are divided with it.
        stage: what the attempt does, as the subject of an error message.

    Raises:
        DeviceMemoryError: the device has too little memory for batches of one example.
    """
    lacking: torch.OutOfMemoryError | None = None
    while True:
        try:
            return attempt(batches)
        except torch.OutOfMemoryError as error:
            lacking = error.with_traceback(None)  # whose frames hold tensors
        except Exception as error:
            if lacking is None:
                raise
            raise full(batches, lacking, stage, f"With smaller batches: {type(error).__name__}: {error}") from error
        if (largest := max(map(examples_of, batches), default=0)) <= 1:
            raise full(batches, lacking, stage) from lacking
        batches = [half for batch in batches for half in parts_of(batch, -(-largest // 2))]
        release()


@contextlib.contextmanager
def whole_batches(batches: Sequence[object], *, stage: str) -> Iterator[None]:
    """Says what to change where a device has too little memory and other batches would change the result."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise full(batches, error, stage, "Give smaller batches of calibration examples.") from error


def release() -> None:
    """Gives the memory back that failed attempts have left on CUDA devices."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def full(batches: Sequence[object], error: BaseException, stage: str, advice: str = ADVICE) -> DeviceMemoryError:
    """The error that says which stage has too little memory, how much there is, and what to change."""
    device = next((x.device for x in tree_leaves(list(batches)) if isinstance(x, torch.Tensor)), torch.device("cpu"))
    free, total = free_bytes(device), total_bytes(device)
    size = (
        "" if free is None or total is None else f" with {total / 2**30:.1f} GiB, of which {free / 2**30:.1f} are free"
    )
    return DeviceMemoryError(
        f"{stage}: expected enough memory for batches of {max(map(examples_of, batches), default=0)} examples on the "
        f"device {device}{size}, it ran out: {str(error).splitlines()[0]} {advice}"
    )


def examples_of(batch: object) -> int:
    """The number of examples of a batch: the length of its first tensor."""
    return next((len(leaf) for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor) and leaf.dim()), 0)


def parts_of(batch: Batch, size: int) -> list[Batch]:
    """The batch in parts of `size` examples; the last one may be smaller."""
    count = examples_of(batch)

    def part(start: int) -> Batch:
        def taken(x: torch.Tensor) -> torch.Tensor:
            return x[start : start + size] if x.dim() and len(x) == count else x

        whole: Batch = tree_map_only(torch.Tensor, taken, batch)
        return whole

    return [part(start) for start in range(0, count, size)]
