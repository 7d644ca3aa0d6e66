"""Optuna's pruners: a network is scored on growing parts of the selection set until its pruner stops it.

Steps, in which pruners count, are 1, eta, eta ** 2 and so on from the least fidelity to full: they are proportional to
the examples. Pruners that take a range of resources are given this one. Optuna's WilcoxonPruner compares trials on the
same examples pair by pair: it gets the loss of each part separately, all others the mean so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.errors import ConfigError
from autoprune.searchers.common.goal import Goal
from autoprune.searchers.optuna.classes import make
from autoprune.searchers.partial.rungs import geometric

if TYPE_CHECKING:
    import optuna

ADVICE = "Search at one budget: over: sensitivities with budget: 0.5. For fronts take halving, asha or racing."


@dataclass(frozen=True)
class TrialPruning:
    """A pruner and the losses that it sees: one objective's, at fidelities, as the running mean or part by part."""

    pruner: optuna.pruners.BasePruner
    objective: Objective
    fidelities: tuple[float, ...]
    eta: int
    in_parts: bool

    def step(self, fidelity: float) -> int:
        step: int = self.eta ** self.fidelities.index(fidelity)
        return step

    def following(self, fidelity: float) -> float:
        """The fidelity after one below 1."""
        return self.fidelities[self.fidelities.index(fidelity) + 1]

    def loss(self, evaluation: Evaluation) -> float:
        """The loss of an evaluation that is reported to the pruner, lower is better."""
        name = self.objective.name
        if not self.in_parts:
            return self.objective.loss(evaluation.values[name])
        if name not in evaluation.parts:
            raise ConfigError(
                f"expected an objective or guide that is measured part by part, got {name!r}, which is not. "
                "Take guide: kl, or another pruner."
            )
        return self.objective.loss(evaluation.parts[name][self.fidelities.index(evaluation.candidate.fidelity)])


def make_pruning(
    problem: Problem, goal: Goal | None, name: str | None, options: Mapping[str, Any], least: float, eta: int
) -> TrialPruning | None:
    """The pruning of trials at fidelities from `least` on; None without a pruner.

    Args:
        problem: the problem to search.
        goal: the goal of a search for one network; None for a search over all objectives.
        name: a class of optuna.pruners, or "module:Class" for a user's own.
        options: keyword arguments of its constructor; a `wrapped_pruner` is given by name.
        least: the lowest fidelity.
        eta: the ratio of successive fidelities.

    Raises:
        ConfigError: the name is unknown, an option is refused or unused, or there is not exactly one measured
            objective.
    """
    fidelities = geometric(least, at_least("eta", eta, 2))
    if name is None:
        if options:
            raise ConfigError(f"expected no pruner_options without a pruner, got {dict(options)}. Name the pruner.")
        return None
    objective = _objective(problem, goal)
    resources = {"min_resource": 1, "max_resource": eta ** (len(fidelities) - 1), "reduction_factor": eta}
    inner = options.get("wrapped_pruner")
    wrapped = {"wrapped_pruner": make("pruner", inner, resources, {})} if isinstance(inner, str) else {}
    pruner = make("pruner", name, resources, {**options, **wrapped})
    in_parts = _is_paired(pruner) or any(_is_paired(found) for found in wrapped.values())
    return TrialPruning(pruner, objective, fidelities, eta, in_parts)


def _objective(problem: Problem, goal: Goal | None) -> Objective:
    """The objective whose losses the pruner sees."""
    if goal is None and len(problem.objectives) > 1:
        raise ConfigError(f"expected one objective with a pruner, got {len(problem.objectives)}. {ADVICE}")
    objective = problem.objectives[goal.objective if goal else 0]
    if objective.name in problem.costs.names:
        raise ConfigError(f"expected an objective that is measured with a pruner, got {objective.name!r}, a cost.")
    return objective


def _is_paired(pruner: optuna.pruners.BasePruner) -> bool:
    from optuna.pruners import WilcoxonPruner

    return isinstance(pruner, WilcoxonPruner)
