"""Statistics of a unit that closed-form rules use instead of evaluations; free of torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.errors import ConfigError


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistics of a unit's n positions (or single weights); None for those that were not measured.

    Attributes:
        magnitudes: (n,) squared norms of the weights that produce each position.
        shape: the shape of the producing weight as (out, in, ...kernel).
        fluctuation: (n,) variances of each position's activation.
        outlier_share: the share of the unit's weights whose |weight| times input norm lies far above the unit's mean.
    """

    magnitudes: np.ndarray
    shape: tuple[int, ...]
    fluctuation: np.ndarray | None = None
    outlier_share: float | None = None

    def __post_init__(self) -> None:
        for name in ("magnitudes", "fluctuation"):
            values = getattr(self, name)
            if values is not None and not (values.shape == self.magnitudes.shape == (len(values),) and _usable(values)):
                raise ConfigError(
                    f"expected {name} of a profile as (n,) finite numbers of 0 or more, one for each position, got "
                    f"shape {values.shape} for {len(self.magnitudes)} magnitudes, from {values.min()} to {values.max()}"
                )
        if self.outlier_share is not None and not 0 <= self.outlier_share <= 1:
            raise ConfigError(f"expected the outlier share of a profile from 0 to 1, got {self.outlier_share}")


def _usable(values: np.ndarray) -> bool:
    return bool((np.isfinite(values) & (values >= 0)).all())
