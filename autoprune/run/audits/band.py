"""The budget band of an audit: the networks whose cost lies between two values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.core.objective import Bound
from autoprune.errors import ConfigError, did_you_mean

WIDTH = 0.05  # of the default band to each side, as a share of the middle member's cost

_BAND = re.compile(r"^\s*([A-Za-z_]\w*)\s*=\s*([0-9.eE+_-]+?)\s*\.\.\s*([0-9.eE+_-]+)\s*$")


@dataclass(frozen=True)
class Band:
    """Networks whose `cost` is at least `low` and at most `high`, in the cost's own unit."""

    cost: str
    low: float
    high: float

    @staticmethod
    def parse(text: str, dense: Mapping[str, float]) -> Band:
        """Parses a band such as "macs=0.45..0.55"; a value up to 1 is a share of the dense network's cost.

        Args:
            text: the band.
            dense: the costs of the dense network.

        Raises:
            ConfigError: the text is not a band, or it is not on a cost.
        """
        match = _BAND.match(text)
        if match is None:
            raise ConfigError(f"expected a band of a cost such as 'macs=0.45..0.55', got {text!r}")
        cost = match[1]
        if cost not in dense:
            known = sorted(dense)
            raise ConfigError(f"expected a band of one of the costs {known}, got {text!r}{did_you_mean(cost, known)}")
        low, high = (Bound.parse(f"{cost}={end}").absolute(dense).value for end in match.groups()[1:])
        if low > high:
            raise ConfigError(f"expected a band whose first value is not above its second, got {text!r}")
        return Band(cost, low, high)

    @staticmethod
    def around(cost: str, value: float) -> Band:
        """The default band around the cost of a network."""
        return Band(cost, (1 - WIDTH) * value, (1 + WIDTH) * value)

    def admits(self, value: float) -> bool:
        return self.low <= value <= self.high

    def shown(self, dense: Mapping[str, float]) -> str:
        """The band in words, as in "macs 45.0 to 55.0 % of dense"."""
        low, high = (100 * end / dense[self.cost] for end in (self.low, self.high))
        return f"{self.cost} {low:.1f} to {high:.1f} % of dense"
