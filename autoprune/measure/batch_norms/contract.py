"""The contract of the policies that set the statistics of a pruned network's batch norms."""

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

PolicyName = Literal["anchored", "reestimated", "eagleeye", "batch"]
Inputs = tuple[torch.Tensor, ...]


@dataclass(eq=False)
class BatchNorms(ABC):
    """A policy that sets the batch norm statistics of pruned networks.

    Attributes:
        dense: the dense network.
        calibrate: inputs that statistics may be estimated on.
        select: the inputs that networks are measured on, by key.
        reuses_prefix: whether layers before the first difference from the dense network have the same outputs as there.
        calibrates: whether a score takes passes over the calibration inputs.
        tunes_batch: whether scores are independent of the batch size, up to rounding.
    """

    dense: nn.Module
    calibrate: Sequence[Inputs]
    select: Mapping[Hashable, Inputs] = field(default_factory=dict)

    reuses_prefix: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    tunes_batch: ClassVar[bool] = True

    def prepare(self) -> None:  # noqa: B027  # a policy may have nothing to prepare
        """Computes the values that all networks share now rather than with the first network."""

    @abstractmethod
    def settled(
        self, network: nn.Module, indices: Indices, intact: Collection[str] = ()
    ) -> AbstractContextManager[None]:
        """Sets the batch norm statistics of a pruned network inside the context.

        Args:
            network: the pruned network; it is changed in place.
            indices: the channels of each tensor of the dense network that it keeps.
            intact: names of the batch norms before which nothing was pruned.
        """

    @classmethod
    @abstractmethod
    def deployed(cls) -> type[WrittenStatistics]:
        """The policy for exported networks."""


class WrittenStatistics(BatchNorms):
    """A policy that writes statistics into the network permanently."""

    @abstractmethod
    def settle(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> None:
        """Writes the statistics into the network. The arguments are the same as for `settled`."""

    @contextlib.contextmanager
    def settled(self, network: nn.Module, indices: Indices, intact: Collection[str] = ()) -> Iterator[None]:
        self.settle(network, indices, intact)
        yield

    @classmethod
    def deployed(cls) -> type[WrittenStatistics]:
        return cls
