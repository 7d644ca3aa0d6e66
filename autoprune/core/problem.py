"""The problem that every searcher gets: a space, objectives, costs that need no evaluation, and hard bounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import numpy as np

from autoprune.core.cost import CostModel
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective, losses
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError, InfeasibleBudget

Key = TypeVar("Key")
Value = TypeVar("Value")


class ReadOnly(dict[Key, Value]):
    """A dict that refuses changes; unlike a MappingProxyType it can be pickled, and written as JSON."""

    def _refuse(self, *given: Any, **named: Any) -> NoReturn:
        raise TypeError("expected no change of a read-only mapping. Change a copy of it: dict(mapping)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[ReadOnly[Key, Value]], tuple[dict[Key, Value]]]:
        return type(self), (dict(self),)


def frozen(value: Any) -> Any:
    """The value with read-only mappings and tuples in place of dicts and lists, at any depth."""
    if isinstance(value, Mapping):
        return ReadOnly({key: frozen(entry) for key, entry in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True, eq=False)
class Profile:
    """Statistics of a unit's n positions (or single weights), which closed-form rules use instead of evaluations.

    None stands for those that were not measured.

    Attributes:
        magnitudes: (n,) squared norms of the weights that produce each position.
        shape: the shape of the producing weight as (out, in, ...kernel).
        fluctuation: (n,) variances of each position's activation.
        outlier_share: the share of the unit's weights whose |weight| times input norm lies far above the unit's mean.
        block: the number of the block that the unit is in, from 0; None outside of blocks.
    """

    magnitudes: np.ndarray
    shape: tuple[int, ...]
    fluctuation: np.ndarray | None = None
    outlier_share: float | None = None
    block: int | None = None

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


@dataclass(frozen=True, eq=False)
class BlockDistances:
    """How much the b blocks of the dense network change the hidden states that pass through them.

    Attributes:
        influence: (b,) means over all tokens of 1 minus the cosine of a block's input and its output.
        angles: (b + 1, b + 1) mean angles, as shares of a half turn, between the hidden states that enter blocks i and
            j, at the last token; what leaves the last block is at index b.
    """

    influence: np.ndarray
    angles: np.ndarray


@dataclass(frozen=True)
class Problem:
    """A search space and what is optimised over it.

    Letters: n candidates, u units, m objectives.

    Attributes:
        space: the units and their levels.
        objectives: the m values to optimise.
        costs: costs that follow from kept counts alone.
        bounds: limits on costs in their own units (never a share); they hold for every candidate a searcher proposes.
        distortion: the name of a measured value that grows with damage (0 when dense, e.g. "kl"), or None.
        profiles: statistics of units that need no evaluation, by name; read-only, and a unit may have none.
        block_distances: measures the distances between hidden states before and after each block, or None.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    costs: CostModel
    bounds: tuple[Bound, ...] = ()
    distortion: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict, compare=False)
    block_distances: Callable[[], BlockDistances] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "profiles", ReadOnly(self.profiles))

    def cost_values(self, levels: np.ndarray, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Costs by name, (n,) each, of (n, u) level indices; `names` restricts them, None returns all."""
        return self.costs.evaluate(self.space.units, self.space.kept(levels), names)

    def costs_of(self, candidate: Candidate) -> dict[str, float]:
        """All costs of one candidate, as plain numbers."""
        return {name: value[0].item() for name, value in self.cost_values(np.array([candidate.levels])).items()}

    def feasible(self, levels: np.ndarray) -> np.ndarray:
        """(n,) True where (n, u) level indices satisfy all bounds."""
        inside = np.ones(len(levels), dtype=bool)
        values = self.cost_values(levels, {bound.name for bound in self.bounds}) if self.bounds else {}
        for bound in self.bounds:
            inside &= values[bound.name] <= bound.value
        return inside

    def reach(self) -> dict[str, tuple[float, float]]:
        """The least and largest value of every cost: those of the smallest and of the dense candidate."""
        return dict(self._reach)

    @functools.cached_property
    def _reach(self) -> dict[str, tuple[float, float]]:
        ends = self.cost_values(np.array([self.space.smallest.levels, self.space.dense.levels]))
        return {name: (value.min().item(), value.max().item()) for name, value in ends.items()}

    def losses(self, evaluations: Sequence[Evaluation]) -> np.ndarray:
        """(n, m) losses of ok evaluations, lower is better."""
        return losses(evaluations, self.objectives)

    def check_bounds(self) -> None:
        """Checks that every bound can hold.

        Raises:
            ConfigError: a bound is not an upper bound on a cost.
            InfeasibleBudget: the smallest network exceeds a bound.
        """
        reach = self.reach()
        for bound in self.bounds:
            if bound.name not in reach or bound.sense != "<=":
                raise ConfigError(
                    f"expected a budget as an upper bound on one of the costs {sorted(reach)}, got {bound}. "
                    "A value that is measured cannot be a budget; use it to pick from the front."
                )
            least, dense = reach[bound.name]
            if not bound.value >= least:
                raise InfeasibleBudget(
                    f"budget {bound.name} <= {bound.value:g} ({bound.value / dense:.4f} of dense) cannot be reached: "
                    f"the smallest network of this space has {bound.name} = {least:g} ({least / dense:.4f} of dense). "
                    "Raise the budget, or allow fewer kept positions or more units in the space."
                )


def is_usable(problem: Problem, evaluation: Evaluation) -> bool:
    """Whether an evaluation is ok and has a finite value for every objective; if not, it counts as failed."""
    return evaluation.ok and all(math.isfinite(evaluation.values.get(o.name, math.nan)) for o in problem.objectives)


def primary_cost(problem: Problem) -> str:
    """The cost whose range a search covers: the first objective that is a cost, else the first cost."""
    names = problem.costs.names
    if not names:
        raise ConfigError("expected a problem with at least one cost such as macs, got none")
    return next((o.name for o in problem.objectives if o.name in names), names[0])


def cost_range(problem: Problem, cost: str) -> tuple[float, float]:
    """The least and largest value of a cost over the candidates within its bounds."""
    least, most = problem.reach()[cost]
    return least, min([most, *(bound.value for bound in problem.bounds if bound.name == cost)])
