"""The problem every searcher gets: a space, objectives, costs known without running anything, and hard bounds."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from autoprune.core.cost import CostModel
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective, losses
from autoprune.core.profile import Profile
from autoprune.core.space import Candidate, SearchSpace
from autoprune.errors import ConfigError, InfeasibleBudget


class Profiles(Mapping[str, Profile]):
    """Profiles by the names of units, which nothing changes; unlike a MappingProxyType it can be pickled."""

    def __init__(self, profiles: Mapping[str, Profile]) -> None:
        self._profiles = dict(profiles)

    def __getitem__(self, unit: str) -> Profile:
        return self._profiles[unit]

    def __iter__(self) -> Iterator[str]:
        return iter(self._profiles)

    def __len__(self) -> int:
        return len(self._profiles)


@dataclass(frozen=True)
class Problem:
    """A search space with what to optimise in it.

    `bounds` limit costs in their own units (never a share) and hold for every candidate a searcher may propose.
    `distortion` names a measured value that grows with damage (0 when dense, e.g. "kl"), or None. `profiles` hold what
    is known of units without an evaluation, by name, and are read-only; a unit may have none.
    Letters: n candidates, u units, m objectives.
    """

    space: SearchSpace
    objectives: tuple[Objective, ...]
    costs: CostModel
    bounds: tuple[Bound, ...] = ()
    distortion: str | None = None
    profiles: Mapping[str, Profile] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "profiles", Profiles(self.profiles))

    def cost_values(self, levels: np.ndarray, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Every cost, or those of the names, of (n, u) level indices, (n,) each."""
        return self.costs.evaluate(self.space.units, self.space.kept(levels), names)

    def costs_of(self, candidate: Candidate) -> dict[str, float]:
        """Every cost of one candidate, as plain numbers."""
        return {name: value[0].item() for name, value in self.cost_values(np.array([candidate.levels])).items()}

    def feasible(self, levels: np.ndarray) -> np.ndarray:
        """(n,) True where all bounds hold."""
        inside = np.ones(len(levels), dtype=bool)
        values = self.cost_values(levels, {bound.name for bound in self.bounds}) if self.bounds else {}
        for bound in self.bounds:
            inside &= values[bound.name] <= bound.value
        return inside

    def reach(self) -> dict[str, tuple[float, float]]:
        """Least and largest value of every cost: those of the smallest and of the dense candidate."""
        return dict(self._reach)

    @functools.cached_property
    def _reach(self) -> dict[str, tuple[float, float]]:
        ends = self.cost_values(np.array([self.space.smallest.levels, self.space.dense.levels]))
        return {name: (value.min().item(), value.max().item()) for name, value in ends.items()}

    def losses(self, evaluations: Sequence[Evaluation]) -> np.ndarray:
        """(n, m) objective values of ok evaluations, lower is better."""
        return losses(evaluations, self.objectives)

    def check_bounds(self) -> None:
        """Raises ConfigError for a bound on no cost or not an upper one, InfeasibleBudget for one out of reach."""
        reach = self.reach()
        for bound in self.bounds:
            if bound.name not in reach or bound.sense != "<=":
                raise ConfigError(
                    f"expected a budget as an upper bound on one of the costs {sorted(reach)}, got {bound}. "
                    "What is only known after an evaluation cannot be a budget; pick from the front by it."
                )
            least, dense = reach[bound.name]
            if not bound.value >= least:
                raise InfeasibleBudget(
                    f"budget {bound.name} <= {bound.value:g} ({bound.value / dense:.4f} of dense) cannot be reached: "
                    f"the smallest network of this space has {bound.name} = {least:g} ({least / dense:.4f} of dense). "
                    "Raise the budget, or allow fewer kept positions or more units in the space."
                )


def is_usable(problem: Problem, evaluation: Evaluation) -> bool:
    """Whether an evaluation is ok with a finite value for every objective; else it counts as failed."""
    return evaluation.ok and all(math.isfinite(evaluation.values.get(o.name, math.nan)) for o in problem.objectives)


def primary_cost(problem: Problem) -> str:
    """The cost whose range a search covers: the first objective that is a cost, else the first cost there is."""
    names = problem.costs.names
    if not names:
        raise ConfigError("expected a problem with at least one cost such as macs, got none")
    return next((o.name for o in problem.objectives if o.name in names), names[0])


def cost_range(problem: Problem, cost: str) -> tuple[float, float]:
    """Least and largest value of a cost that candidates can have, its bounds taken into account."""
    least, most = problem.reach()[cost]
    return least, min([most, *(bound.value for bound in problem.bounds if bound.name == cost)])
