"""Any Optuna sampler by its class name, over level indices, through ask and tell on a study in memory.

Optuna proposes what it likes; autoprune's rules are kept around it. A proposal outside the bounds is repaired, failed
in the study, and the repaired network enqueued as a trial of its own, so that the sampler learns of what was really
measured. A proposal known already is answered from memory and not evaluated again.
"""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError
from autoprune.search.proposals import Levels, Proposals, at_least
from autoprune.search.repair import repair, stratified
from autoprune.search.uniform import coarse_to_fine, ladder

if TYPE_CHECKING:
    import optuna

ATTEMPTS = 64  # proposals in a row that are known already, before a random network is taken instead

MULTI_OBJECTIVE = ("NSGAIISampler", "NSGAIIISampler", "TPESampler", "GPSampler", "QMCSampler", "RandomSampler")
SINGLE_OBJECTIVE = ("CmaEsSampler",)


class OptunaSearch:
    """Proposals of one Optuna sampler, after up to `rungs` uniform networks that are enqueued first (0: none).

    `sampler_options` go to the sampler's constructor besides the seed. With several answers outstanding NSGA-II fills
    a generation with whatever comes back, as Optuna does. Ends when the space is exhausted.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        sampler: str = "NSGAIISampler",
        sampler_options: Mapping[str, Any] | None = None,
        rungs: int = 12,
    ) -> None:
        _check_sampler(sampler, len(problem.objectives))
        self._sampler = sampler
        self._options = {"seed": seed, **(sampler_options or {})}
        self._rungs = at_least("rungs", rungs, 0)
        self._proposals = Proposals(problem)
        self._rng = np.random.default_rng(seed)
        self._running: dict[Levels, optuna.Trial] = {}
        self._study: optuna.Study | None = None

    def ask(self, n: int) -> list[Candidate]:
        try:
            self._fill(n)
        except ImportError as error:  # QMC, GP and CMA-ES import theirs only when they sample
            raise ConfigError(f"optuna's {self._sampler} needs a package that is not installed: {error}") from error
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        with _quiet():
            for evaluation in evaluations:
                trial = self._running.pop(evaluation.candidate.levels, None)
                if trial is not None:
                    self._answer(self._started(), trial, evaluation.candidate.levels)

    def _fill(self, n: int) -> None:
        """Queues until n candidates wait to be handed out, or the space is exhausted."""
        with _quiet():
            study = self._started()
            while self._proposals.queued < n and self._propose(study):
                pass

    def _started(self) -> optuna.Study:
        if self._study is None:
            import optuna

            problem = self._proposals.problem
            sampler = _make_sampler(self._sampler, self._options)
            # losses: signs are flipped by Objective alone
            directions = [optuna.study.StudyDirection.MINIMIZE] * len(problem.objectives)
            self._study = optuna.create_study(sampler=sampler, directions=directions)
            for levels in coarse_to_fine(ladder(problem, self._rungs)) if self._rungs else ():
                self._enqueue(self._study, levels)
        return self._study

    def _propose(self, study: optuna.Study) -> bool:
        """Queues one more network; False when the space is exhausted."""
        for _ in range(ATTEMPTS):
            if self._try(study):
                return True
        before = self._proposals.queued
        for levels in self._fallback():
            self._enqueue(study, levels)
            self._try(study)
        return self._proposals.queued > before

    def _try(self, study: optuna.Study) -> bool:
        """Asks for one trial; True if that queues a network. What is known is answered, what is outside repaired."""
        trial = study.ask(self._distributions())
        params = trial.params  # a copy of all of them each time
        levels = tuple(params[unit] for unit in self._proposals.problem.space.units)
        fixed = tuple(repair(self._proposals.problem, np.array(levels), self._rng).tolist())
        if fixed != levels:
            self._fail(study, trial)
            if not self._proposals.knows(fixed):
                self._enqueue(study, fixed)
            return False
        if not self._proposals.add(levels):
            self._answer(study, trial, levels)
            return False
        self._running[levels] = trial
        return True

    def _answer(self, study: optuna.Study, trial: optuna.Trial, levels: Levels) -> None:
        """Tells a trial what is known of its network: its losses, or that it failed or is not answered yet."""
        if levels in self._proposals.losses:
            study.tell(trial, list(self._proposals.losses[levels]))
        else:
            self._fail(study, trial)

    def _fail(self, study: optuna.Study, trial: optuna.Trial) -> None:
        from optuna.trial import TrialState

        study.tell(trial, state=TrialState.FAIL)

    def _enqueue(self, study: optuna.Study, levels: Sequence[int]) -> None:
        study.enqueue_trial(dict(zip(self._proposals.problem.space.units, map(int, levels), strict=True)))

    def _distributions(self) -> dict[str, optuna.distributions.BaseDistribution]:
        from optuna.distributions import IntDistribution

        space = self._proposals.problem.space
        return {unit: IntDistribution(0, len(c) - 1) for unit, c in zip(space.units, space.levels, strict=True)}

    def _fallback(self) -> list[Levels]:
        """A few networks not known yet: random ones, or the next ones of a small space."""
        problem = self._proposals.problem
        rows = [tuple(levels.tolist()) for levels in stratified(problem, self._rng, 8)]
        return [row for row in dict.fromkeys(rows) if not self._proposals.knows(row)] or self._proposals.remaining(1)


def _check_sampler(name: str, objectives: int) -> None:
    known = [*MULTI_OBJECTIVE, *SINGLE_OBJECTIVE]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"expected sampler to be one of {known}, got {name!r}.{hint}")
    if objectives > 1 and name in SINGLE_OBJECTIVE:
        raise ConfigError(
            f"sampler {name!r} handles one objective, got {objectives}. Those that handle several: "
            f"{list(MULTI_OBJECTIVE)}."
        )


def _make_sampler(name: str, options: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """The sampler; ConfigError if its constructor refuses the options."""
    import optuna

    try:
        sampler: optuna.samplers.BaseSampler = getattr(optuna.samplers, name)(**options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optuna's {name} does not take sampler_options {dict(options)}: {error}") from error
    return sampler


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Optuna without progress lines and notices that a feature is experimental; both as before afterwards."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
