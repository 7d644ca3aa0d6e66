"""Any Optuna sampler by its class name, through ask and tell on a study in memory.

Optuna proposes what it likes; autoprune's rules are kept around it. A sampler chooses levels, or sensitivities from
which a plan is made (Frantar, Alistarh, ICML 2022, https://arxiv.org/abs/2201.13096; see search.decoder), for which no
proposal is outside the bounds. Levels outside are told to the study as a pruned trial with its constraints, by how much
of the dense cost each bound is exceeded, which is what samplers that know constraints learn from; the network is
repaired and enqueued as a trial of its own, so that the sampler learns of what was really measured. A proposal known
already is answered from memory and not evaluated again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.search.goal import Goal, make_goal
from autoprune.search.optuna_codings import Coding, LevelCoding, SensitivityCoding
from autoprune.search.optuna_samplers import make_sampler, quiet
from autoprune.search.proposals import Levels, Proposals, at_least
from autoprune.search.repair import repair

if TYPE_CHECKING:
    import optuna

Over = Literal["levels", "sensitivities"]


class OptunaSearch:
    """Proposals of one Optuna sampler, after up to `rungs` uniform networks that are enqueued first (0: none).

    `sampler` is a class of optuna.samplers or "module:Class"; `sampler_options` go to its constructor besides the seed.
    With `over: sensitivities` it chooses a number from 0 to 1 for each unit, and a budget for all of them. A `budget`,
    as a share of the first cost, makes that a search for one network with one objective, the first that is measured,
    as CMA-ES and problems of one objective need it (0.5 then, where none is given). With several answers outstanding
    NSGA-II fills a generation with whatever comes back, as Optuna does. Ends when the space is exhausted; over
    sensitivities, which do not reach all of it, when nothing new is found any more.

    Samplers that know constraints meet two kinds of them: TPE learns from proposals outside the bounds themselves, GP
    from the costs of those inside. Nothing outside is ever proposed.
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
    ) -> None:
        self._proposals = Proposals(problem)
        self._coding, self._goal = _coding(problem, over, budget)
        objectives = 1 if self._goal else len(problem.objectives)
        self._sampler = sampler
        self._study = _study(make_sampler(sampler, sampler_options or {}, seed, objectives), objectives)
        self._rng = np.random.default_rng(seed)
        self._running: dict[Levels, list[optuna.Trial]] = {}
        for parameters in self._coding.starts(at_least("rungs", rungs, 0)):
            self._study.enqueue_trial(parameters)

    def ask(self, n: int) -> list[Candidate]:
        try:
            with quiet():
                while self._proposals.queued < n and self._propose():
                    pass
        except ImportError as error:  # QMC, GP and CMA-ES import theirs only when they sample
            raise ConfigError(f"optuna's {self._sampler} needs a package that is not installed: {error}") from error
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        with quiet():
            for evaluation in evaluations:
                for trial in self._running.pop(evaluation.candidate.levels, []):
                    self._answer(trial, evaluation.candidate.levels)

    def _propose(self) -> bool:
        """Queues one more network; False when none is found."""
        if any(self._try() for _ in range(self._coding.attempts)):
            return True
        before = self._proposals.queued
        for parameters in self._coding.others(self._proposals, self._rng):
            self._study.enqueue_trial(parameters)
            self._try()
        return self._proposals.queued > before

    def _try(self) -> bool:
        """Asks for one trial; True if that queues a network. What is known is answered, what is outside repaired."""
        trial = self._study.ask(self._coding.distributions())
        levels = self._coding.levels(trial.params)
        if not self._constrain(trial, levels):
            self._move(trial, levels)
            return False
        new = self._proposals.add(levels)
        if new or levels in self._running:
            self._running.setdefault(levels, []).append(trial)
        else:
            self._answer(trial, levels)
        return new

    def _constrain(self, trial: optuna.Trial, levels: Levels) -> bool:
        """Notes by how much of the dense cost each bound is exceeded, below zero within it; whether all hold."""
        problem = self._proposals.problem
        costs, reach = problem.costs_of(Candidate(levels)), problem.reach()
        for bound in problem.bounds:
            trial.set_constraint(bound.name, (costs[bound.name] - bound.value) / (reach[bound.name][1] or 1.0))
        return all(bound.admits(costs[bound.name]) for bound in problem.bounds)

    def _move(self, trial: optuna.Trial, levels: Levels) -> None:
        """Ends a trial outside the bounds, and enqueues the network it is repaired to unless that is known."""
        self._tell(trial, "PRUNED")
        assert isinstance(self._coding, LevelCoding)  # plans keep the bounds
        inside = tuple(repair(self._proposals.problem, np.array(levels), self._rng).tolist())
        if not self._proposals.knows(inside):
            self._study.enqueue_trial(self._coding.parameters(inside))

    def _answer(self, trial: optuna.Trial, levels: Levels) -> None:
        """Tells a trial what is known of its network: its losses, or that it failed."""
        losses = self._proposals.losses.get(levels)
        if losses is None:
            self._tell(trial, "FAIL")
        else:
            self._tell(trial, "COMPLETE", [self._goal.loss(losses)] if self._goal else list(losses))

    def _tell(self, trial: optuna.Trial, state: str, losses: list[float] | None = None) -> None:
        from optuna.trial import TrialState

        try:
            self._study.tell(trial, losses, state=TrialState[state])
        except (KeyError, RuntimeError) as error:
            # samplers that try a whole space end Optuna's own loop, which does not run, and the grid looks for its mark
            # on enqueued trials; the trial is told by then
            if not any(word in str(error) for word in ("Study.stop", "grid_id")):
                raise


def _coding(problem: Problem, over: Over, budget: float | None) -> tuple[Coding, Goal | None]:
    """What the sampler chooses, and the one objective of a search within one budget."""
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


def _study(sampler: optuna.samplers.BaseSampler, objectives: int) -> optuna.Study:
    """Losses are minimised: signs are flipped by Objective alone."""
    import optuna

    with quiet():
        return optuna.create_study(sampler=sampler, directions=["minimize"] * objectives)
