"""The plans of closed-form rules for a ladder of budgets: the field's baselines, measured like everything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.options import at_least
from autoprune.core.problem import Problem, Profile, cost_range, primary_cost
from autoprune.core.space import Levels
from autoprune.errors import ConfigError
from autoprune.plan.ladder import branches_beside_widths
from autoprune.searchers.rules import closed_form
from autoprune.searchers.rules.planned import PlannedSearch

DIALS = np.linspace(1.0, 0.0, 257)  # settings of a rule, from dense down, to choose from for a budget

SharesFunction = Callable[[Sequence[Profile], np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ClosedFormRule:
    """A rule that maps profiles and (d,) dials, from 1 (dense) to 0, to (d, u) kept shares.

    `needs` names the measurements of a profile that it reads.
    """

    shares: SharesFunction
    needs: tuple[str, ...]


def _counted(count: Callable[[Sequence[Profile], np.ndarray], np.ndarray]) -> SharesFunction:
    """Turns a rule that gives counts for a total number of positions into one that gives shares."""

    def shares(profiles: Sequence[Profile], dials: np.ndarray) -> np.ndarray:
        widths = np.array([len(profile.magnitudes) for profile in profiles])
        return np.asarray(count(profiles, (dials * widths.sum()).round().astype(int)) / widths)

    return shares


def _magnitudes(profiles: Sequence[Profile]) -> list[np.ndarray]:
    return [profile.magnitudes for profile in profiles]


def _flap(profiles: Sequence[Profile], keep: np.ndarray) -> np.ndarray:
    fluctuations = [np.asarray(profile.fluctuation) for profile in profiles]
    return closed_form.flap_counts(_magnitudes(profiles), fluctuations, keep)


def _owl(profiles: Sequence[Profile], dials: np.ndarray) -> np.ndarray:
    return closed_form.owl(np.array([profile.outlier_share for profile in profiles], dtype=float), dials)


def _sap(profiles: Sequence[Profile], dials: np.ndarray) -> np.ndarray:
    gamma = 1 / np.maximum(dials, 1e-9) - 1
    return closed_form.sap(_magnitudes(profiles), gamma, most=1.0)


def _incremental(profiles: Sequence[Profile], dials: np.ndarray) -> np.ndarray:
    return closed_form.incremental(np.array([profile.block for profile in profiles], dtype=int), dials)


CLOSED_FORM_RULES: Mapping[str, ClosedFormRule] = {
    "erk": ClosedFormRule(lambda profiles, dials: closed_form.erk([p.shape for p in profiles], dials), ("shape",)),
    "global_magnitude": ClosedFormRule(
        _counted(lambda profiles, keep: closed_form.global_magnitude(_magnitudes(profiles), keep)), ("magnitudes",)
    ),
    "lamp": ClosedFormRule(
        _counted(lambda profiles, keep: closed_form.lamp_counts(_magnitudes(profiles), keep)), ("magnitudes",)
    ),
    "flap": ClosedFormRule(_counted(_flap), ("magnitudes", "fluctuation")),
    "owl": ClosedFormRule(_owl, ("outlier_share",)),
    "sap": ClosedFormRule(_sap, ("magnitudes",)),
    "slimgpt": ClosedFormRule(_incremental, ("block",)),
}
NAMES = ("uniform", *CLOSED_FORM_RULES)


class ClosedFormSearch(PlannedSearch):
    """Proposes the network of each rule for `plans` budgets spread evenly over the first cost, and ends.

    A rule's shares become the nearest levels, and its dial is set as high as the budget and all bounds allow. The
    attribute `left_out` says why rules are not used.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        plans: the number of budgets.
        rules: names from NAMES; None for all rules whose data the problem's profiles hold.

    Raises:
        ConfigError: a rule is unknown, or was asked for by name and lacks its data.
    """

    def __init__(self, problem: Problem, *, seed: int = 0, plans: int = 12, rules: Sequence[str] | None = None) -> None:
        self._plans = at_least("plans", plans, 1)
        super().__init__(problem)
        self.left_out = _missing(problem, NAMES if rules is None else rules)
        if rules is not None and self.left_out:
            raise ConfigError(list(self.left_out.values()))
        self._rules = [name for name in (NAMES if rules is None else rules) if name not in self.left_out]

    def _planned(self) -> list[Levels]:
        """The plans budget by budget from the largest; where dense is allowed, it is every rule's plan for that."""
        problem = self._proposals.problem
        cost = primary_cost(problem)
        ladders = [_ladder(problem, name, cost) for name in self._rules]
        least, most = cost_range(problem, cost)
        found = []
        for budget in np.linspace(most, least, self._plans):
            for rows, costs in ladders:
                within = np.flatnonzero(costs <= budget)
                if len(within):  # a rule may not reach small budgets
                    found.append(tuple(rows[within[costs[within].argmax()]].tolist()))
        return found


def plans_of(problem: Problem, rule: str, cost: str) -> list[tuple[float, Levels]]:
    """All networks within the bounds along a rule's dial: costs and levels, from the widest down.

    Raises:
        ConfigError: the problem's profiles lack the rule's data.
    """
    missing = _missing(problem, [rule])
    if missing:
        raise ConfigError(list(missing.values()))
    rows, costs = _ladder(problem, rule, cost)
    return [(float(value), tuple(row.tolist())) for value, row in zip(costs, rows, strict=True)]


def _ladder(problem: Problem, name: str, cost: str) -> tuple[np.ndarray, np.ndarray]:
    """(n, u) distinct levels over the dial, within the bounds, and their (n,) costs."""
    units = problem.space.units
    if name == "uniform":
        shares = closed_form.uniform(len(units), DIALS)
    else:
        shares = CLOSED_FORM_RULES[name].shares([problem.profiles[unit] for unit in units], DIALS)
    rows = nearest_levels(problem, shares)
    rows[:-1, branches_beside_widths(problem.space)] = 0  # as in plan.ladder; other rules take no space with branches
    rows = rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]
    rows = rows[problem.feasible(rows)]
    return rows, problem.cost_values(rows, (cost,))[cost]


def nearest_levels(problem: Problem, shares: np.ndarray) -> np.ndarray:
    """(n, u) levels whose kept shares are nearest to (n, u) shares; of two equally near the one that keeps more."""
    kept = enumerate(problem.space.shares)
    nearest = [np.abs(shares[:, unit, None] - levels).argmin(axis=1) for unit, levels in kept]
    return np.stack(nearest, axis=1)


def _missing(problem: Problem, names: Sequence[str]) -> dict[str, str]:
    """Why rules cannot be used, by name. ConfigError for a name that is no rule."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ConfigError(f"expected closed-form rules among {list(NAMES)}, got {unknown}")
    reasons = {}
    for name in names:
        needs = CLOSED_FORM_RULES[name].needs if name in CLOSED_FORM_RULES else ()
        without = [unit for unit in problem.space.units if not _holds(problem.profiles.get(unit), needs)]
        if without:
            reasons[name] = (
                f"rule {name!r} needs {' and '.join(needs)} of every unit, and the problem's profiles lack them for "
                f"{len(without)} of {len(problem.space.units)}, {without[0]!r} first. Leave the rule out, or the units."
            )
    return reasons


def _holds(profile: Profile | None, needs: Sequence[str]) -> bool:
    return not needs or (profile is not None and all(getattr(profile, need) is not None for need in needs))
