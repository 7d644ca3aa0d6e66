"""Any Optuna sampler by its class name, through ask and tell on a study in memory.

A sampler proposes freely; autoprune enforces its rules around it. It chooses levels, or sensitivities from which a plan
is made (Frantar, Alistarh, ICML 2022, https://arxiv.org/abs/2201.13096; see plan.decoder), whose networks are always
within the bounds. Levels outside are told to the study as a pruned trial with its constraints (by how much of the dense
cost each bound is exceeded), from which samplers that handle constraints learn; the network is repaired and enqueued as
a trial of its own, so that the sampler learns from the network that was measured. A known proposal is answered from
memory and not evaluated again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.plan.repair import repair
from autoprune.searchers.common.goal import Goal, make_goal
from autoprune.searchers.common.proposals import Proposals
from autoprune.searchers.optuna.classes import quiet, working
from autoprune.searchers.optuna.codings import Coding, LevelCoding, SensitivityCoding
from autoprune.searchers.optuna.pruning import TrialPruning, make_pruning
from autoprune.searchers.optuna.samplers import make_sampler
from autoprune.searchers.optuna.trials import Trials

if TYPE_CHECKING:
    import optuna

Over = Literal["levels", "sensitivities"]
STUDY = "autoprune"


class OptunaSearch:
    """Proposals of one Optuna sampler, after a ladder of uniform networks.

    With several answers outstanding, NSGA-II fills a generation with any answers, as Optuna does. Samplers that handle
    constraints see two kinds of them: TPE learns from proposals outside the bounds, GP from the costs of those inside.
    No candidate outside the bounds is proposed for evaluation. Ends when the space is exhausted; over sensitivities,
    which do not reach all of it, when nothing new is found any more.

    Args:
        problem: the problem to search.
        seed: seed of the sampler.
        sampler: a class of optuna.samplers, or "module:Class".
        sampler_options: keyword arguments of its constructor.
        rungs: the largest number of uniform networks that are enqueued first; 0 for none.
        over: "levels", or "sensitivities": a number from 0 to 1 for each unit, and a budget for all of them.
        budget: only over sensitivities, a share of the first cost: makes it a search for one network with one
            objective, the first that is measured. CMA-ES and problems of one objective need it (0.5 by default there).
        pruner: a class of optuna.pruners, or "module:Class". With it (and one objective) networks are scored on shares
            1, 1 / eta, ... down to `least` of the selection set, least first, until the pruner stops them; see
            searchers.optuna.pruning.
        pruner_options: keyword arguments of its constructor; `eta` and the range of steps are filled in if it takes
            them.
        least: the lowest fidelity with a pruner.
        eta: the ratio of successive fidelities.

    Raises:
        ConfigError: an option is unknown, out of range, or does not fit the problem.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        sampler: str = "NSGAIISampler",
        sampler_options: Mapping[str, Any] | None = None,
        rungs: int = 12,
        over: Over = "levels",
        budget: float | None = None,
        pruner: str | None = None,
        pruner_options: Mapping[str, Any] | None = None,
        least: float = 1 / 9,
        eta: int = 3,
    ) -> None:
        self._proposals = Proposals(problem)
        self._coding, self._goal = _coding(problem, over, budget)
        self._pruning = make_pruning(problem, self._goal, pruner, pruner_options or {}, least, eta)
        if self._pruning:
            self.fidelities, self.in_parts = self._pruning.fidelities, self._pruning.in_parts
        self._distributions = self._coding.distributions()
        objectives = 1 if self._goal else len(problem.objectives)
        self._names = sampler, pruner or sampler
        self._study = _study(make_sampler(sampler, sampler_options or {}, seed, objectives), self._pruning, objectives)
        self._trials = Trials(self._study)
        self._rng = np.random.default_rng(seed)
        self._going: deque[Candidate] = deque()  # networks that continue, at their next fidelity
        for parameters in self._coding.starts(at_least("rungs", rungs, 0)):
            self._study.enqueue_trial(parameters)

    def ask(self, n: int) -> list[Candidate]:
        going = self._take_going(n)
        with working(self._names[0]):
            while self._proposals.queued < n - len(going) and self._propose():
                pass
        first = self._pruning.fidelities[0] if self._pruning else 1.0
        return going + [replace(new, fidelity=first) for new in self._proposals.take(n - len(going))]

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        with working(self._names[1]):
            for evaluation in evaluations:
                self._learn(evaluation)

    def _take_going(self, n: int) -> list[Candidate]:
        """Up to n networks that continue, at their next fidelity."""
        taken: list[Candidate] = []
        while self._going and len(taken) < n:
            candidate = self._going.popleft()
            if self._trials.wait(candidate.levels):  # and no answer came since
                taken.append(candidate)
        return taken

    def _learn(self, evaluation: Evaluation) -> None:
        """Takes in one answer; a network scored on a part continues, or ends as pruned or failed."""
        levels = evaluation.candidate.levels
        heard = self._hear(evaluation)
        if evaluation.candidate.fidelity < 1:
            if not heard or self._goes_on(evaluation):
                return
            evaluation = replace(evaluation, candidate=Candidate(levels), status="failed")  # never fully scored
        self._proposals.record([evaluation])
        self._end(levels)

    def _hear(self, evaluation: Evaluation) -> bool:
        """Reports an answer to the trials that wait for it; returns whether there are any."""
        candidate, pruning = evaluation.candidate, self._pruning
        if not pruning or candidate.fidelity not in pruning.fidelities or not self._trials.wait(candidate.levels):
            return False
        step = pruning.step(candidate.fidelity)
        if self._trials.heard(candidate.levels, step):
            return False
        if is_usable(self._proposals.problem, evaluation):
            self._trials.report(candidate.levels, step, pruning.loss(evaluation))
        return True

    def _goes_on(self, evaluation: Evaluation) -> bool:
        """Queues a network that is not pruned for its next fidelity; False if it failed or was pruned."""
        levels, fidelity = evaluation.candidate.levels, evaluation.candidate.fidelity
        assert self._pruning
        if not is_usable(self._proposals.problem, evaluation) or self._trials.prune(levels):
            return False
        self._going.append(Candidate(levels, self._pruning.following(fidelity)))
        return True

    def _propose(self) -> bool:
        """Queues one more network; False if none is found."""
        if any(self._try() for _ in range(self._coding.attempts)):
            return True
        before = self._proposals.queued
        for parameters in self._coding.others(self._proposals, self._rng):
            self._study.enqueue_trial(parameters)
            self._try()
        return self._proposals.queued > before

    def _try(self) -> bool:
        """Asks for one trial; True if it queues a network. Known networks are answered, those outside are repaired."""
        trial = self._study.ask(self._distributions)
        levels = self._coding.levels(trial.params)
        if not self._constrain(trial, levels):
            self._move(trial, levels)
            return False
        new = self._proposals.add(levels)
        known = not new and not self._trials.wait(levels)
        self._trials.add(trial, levels)
        if known:
            self._end(levels)
        return new

    def _constrain(self, trial: optuna.Trial, levels: Levels) -> bool:
        """Records by how much of the dense cost each bound is exceeded (negative within it); whether all hold."""
        problem = self._proposals.problem
        costs, reach = problem.costs_of(Candidate(levels)) if problem.bounds else {}, problem.reach()
        for bound in problem.bounds:
            trial.set_constraint(bound.name, (costs[bound.name] - bound.value) / (reach[bound.name][1] or 1.0))
        return all(bound.admits(costs[bound.name]) for bound in problem.bounds)

    def _move(self, trial: optuna.Trial, levels: Levels) -> None:
        """Ends a trial outside the bounds, and enqueues the repaired network unless that is known."""
        self._trials.reject(trial)
        assert isinstance(self._coding, LevelCoding)  # plans are within the bounds
        inside = tuple(repair(self._proposals.problem, np.array(levels), self._rng).tolist())
        if not self._proposals.knows(inside):
            self._study.enqueue_trial(self._coding.parameters(inside))

    def _end(self, levels: Levels) -> None:
        """Ends the trials of a network with its known losses."""
        losses = self._proposals.losses.get(levels, ())
        self._trials.end(levels, (self._goal.loss(losses),) if self._goal and losses else losses)


def _coding(problem: Problem, over: Over, budget: float | None) -> tuple[Coding, Goal | None]:
    """The coding of the sampler's parameters, and the goal of a search within one budget."""
    if over not in get_args(Over):
        raise ConfigError(f"expected over to be one of {list(get_args(Over))}, got {over!r}")
    if over == "levels":
        if budget is not None:
            raise ConfigError("expected no budget with over: levels. Set over: sensitivities, or bound an objective.")
        return LevelCoding(problem), None
    if budget is None and len(problem.objectives) > 1:
        return SensitivityCoding(problem, None), None
    goal = make_goal(problem, 0.5 if budget is None else budget)
    return SensitivityCoding(problem, goal.budget), goal


def _study(sampler: optuna.samplers.BaseSampler, pruning: TrialPruning | None, objectives: int) -> optuna.Study:
    """A study that minimises losses (Objective alone flips signs); Hyperband's brackets depend on the study's name."""
    import optuna

    pruner = pruning.pruner if pruning else optuna.pruners.NopPruner()
    with quiet():
        return optuna.create_study(
            sampler=sampler, pruner=pruner, directions=["minimize"] * objectives, study_name=STUDY
        )
