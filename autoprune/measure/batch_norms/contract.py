"""The contract of the policies by which batch norms of pruned networks get their statistics."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import nn

from autoprune.prune.surgery.surgery import Indices

Name = Literal["anchored", "reestimated", "eagleeye", "batch"]
Inputs = tuple[torch.Tensor, ...]


@dataclass(eq=False)
class BatchNorms(ABC):
    """Settles the batch norms of pruned networks in one way.

    Attributes:
        dense: the dense network.
        calibrate: inputs that statistics may be estimated on.
        select: the inputs that networks are measured on, by key.
        reuses_prefix: whether the layers before the first difference to the dense network compute what they compute
            there.
        calibrates: whether a score takes passes over the calibration inputs.
        tunes_batch: whether scores stay the same, but for rounding, when more or fewer examples run at once.
    """

    dense: nn.Module
    calibrate: Sequence[Inputs]
    select: Mapping[Hashable, Inputs] = field(default_factory=dict)

    reuses_prefix: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    tunes_batch: ClassVar[bool] = True

    def prepare(self) -> None:  # noqa: B027  # a policy may have nothing to prepare
        """Computes now what all networks share, which is otherwise computed for the first one."""

    @abstractmethod
    def settled(
        self, network: nn.Module, indices: Indices, intact: Collection[str] = ()
    ) -> AbstractContextManager[None]:
        """Settles the batch norms of a pruned network inside the context.

        Args:
            network: the pruned network; it is changed in place.
            indices: which channels of each tensor of the dense network it keeps.
            intact: names of the batch norms before which nothing was pruned.
        """

    @classmethod
    @abstractmethod
    def deployed(cls) -> type[WrittenStatistics]:
        """The policy by which networks are settled that are exported."""


class WrittenStatistics(BatchNorms):
    """A policy that writes statistics into the network, where they stay."""

    @abstractmethod
    def settle(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> None:
        """Writes the statistics; the arguments are those of `settled`."""

    @contextlib.contextmanager
    def settled(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> Iterator[None]:
        self.settle(network, indices, intact)
        yield

    @classmethod
    def deployed(cls) -> type[WrittenStatistics]:
        return cls
