"""Several processes that train one network together, each on a share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch

from autoprune.errors import ConfigError
from autoprune.measure.batch import Batch


class Processes:
    """The processes of a training. All of them hold the same network and take the same steps.

    Args:
        accelerator: an `accelerate.Accelerator`; None for one process alone.
    """

    def __init__(self, accelerator: Any = None) -> None:
        self._accelerator = accelerator
        self.count: int = 1 if accelerator is None else accelerator.num_processes
        self.rank: int = 0 if accelerator is None else accelerator.process_index

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, batch: Batch) -> Batch:
        """The part of a batch that this process computes. ConfigError if there are fewer examples than processes."""
        if batch.examples < self.count:
            raise ConfigError(
                f"batch_size: expected at least one example for each of the {self.count} processes, got "
                f"{batch.examples}. Give larger batches, or start fewer processes."
            )
        edges = [batch.examples * rank // self.count for rank in (self.rank, self.rank + 1)]
        return batch.placed(lambda x: x[edges[0] : edges[1]]) if self.count > 1 else batch

    @torch.no_grad()
    def add(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replaces each tensor by its sum over the processes."""
        for tensor in tensors if self.count > 1 else ():
            tensor.copy_(self._accelerator.reduce(tensor, reduction="sum"))

    def average(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replaces each tensor by its mean over the processes."""
        given = list(tensors)
        self.add(given)
        for tensor in given if self.count > 1 else ():
            tensor.div_(self.count)


def launched() -> Processes:
    """The processes that `accelerate launch` or torchrun has started; one alone otherwise.

    Raises:
        ConfigError: there are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    try:
        from accelerate import Accelerator
    except ImportError as error:
        raise ConfigError(
            "expected accelerate, which several processes train one network with, to be installed, got none. Run: pip "
            "install 'autoprune[recover]'"
        ) from error
    return Processes(Accelerator())
