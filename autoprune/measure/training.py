"""What a scorer asks of whatever trains networks before they are measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any, Protocol

from torch import nn


class NetworkTrainer(Protocol):
    """Trains networks, and may keep them for when more steps are asked for."""

    def trained(self, key: Hashable, begin: Callable[[], nn.Module], sparse: Collection[str], steps: int) -> nn.Module:
        """A network after `steps` steps in all, ready to be measured.

        Args:
            key: what the network is known by.
            begin: makes the untrained network.
            sparse: names of its weights whose zeros stay.
            steps: how many steps it is trained for in all.
        """

    def fully_trained(self, network: nn.Module, sparse: Collection[str]) -> nn.Module:
        """A copy of any network after all steps."""


class Training(Protocol):
    """How networks are trained: picklable, without any network in it."""

    @property
    def loss(self) -> Any:
        """What a step lowers: a name or a function."""

    def steps_at(self, fidelity: float) -> int:
        """How many steps are a share of all."""

    def trainer(self, keep_bytes: int) -> NetworkTrainer:
        """A trainer that keeps at most so many bytes of networks."""
