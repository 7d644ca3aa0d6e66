"""The contracts of objects that train networks before a scorer measures them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from typing import Any, Protocol

from torch import nn


class NetworkTrainer(Protocol):
    """Trains networks, and may keep them to continue their training later."""

    def trained(self, key: Hashable, begin: Callable[[], nn.Module], sparse: Collection[str], steps: int) -> nn.Module:
        """Returns a network after `steps` steps in all, ready to be measured.

        Args:
            key: identifies the network.
            begin: makes the untrained network.
            sparse: names of its weights whose zeros stay.
            steps: the total number of training steps.
        """

    def fully_trained(self, network: nn.Module, sparse: Collection[str]) -> nn.Module:
        """Returns a copy of any network after all steps."""


class Training(Protocol):
    """A plan of training. It is picklable and holds no network."""

    @property
    def loss(self) -> Any:
        """The loss that a step lowers: a name or a function."""

    def steps_at(self, fidelity: float) -> int:
        """The number of steps at a fidelity, a share of all steps."""

    def trainer(self, keep_bytes: int) -> NetworkTrainer:
        """Returns a trainer that keeps at most `keep_bytes` of networks."""
