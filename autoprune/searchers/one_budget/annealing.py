"""Simulated annealing within one budget: chains of networks, each a step from the one before.

Kirkpatrick, Gelatt, Vecchi, Optimization by Simulated Annealing, Science 220, 1983,
https://doi.org/10.1126/science.220.4598.671. Departures: temperatures are multiples of the median difference seen so
far, so that they do not depend on the loss's scale; a step keeps the budget; several chains run side by side, so that
several workers stay busy; each chain ends after a fixed number of steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals

ATTEMPTS = 50  # largest number of consecutive steps to known networks


@dataclass
class Chain:
    """The state of a chain: its network and loss, the pending network, and the number of steps made."""

    at: Levels | None = None
    loss: float = math.inf
    waits_for: Levels | None = None
    steps: int = 0


class AnnealingSearch:
    """Chains of annealing steps within a budget; a failed network is never accepted.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        budget: the limit, as a share of the first cost.
        chains: the number of chains.
        steps: the number of steps per chain.
        hot: the initial temperature, as a multiple of the median difference of losses.
        cold: the final temperature, likewise.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        budget: float = 0.5,
        chains: int = 8,
        steps: int = 200,
        hot: float = 1.0,
        cold: float = 0.01,
    ) -> None:
        if not 0 < cold <= hot:
            raise ConfigError(f"expected temperatures 0 < cold <= hot, got cold {cold!r} and hot {hot!r}")
        self._proposals = Proposals(problem)
        self._goal = make_goal(problem, budget)
        self._steps = at_least("steps", steps, 1)
        self._hot, self._cold = hot, cold
        self._rng = np.random.default_rng(seed)
        self._chains = [Chain() for _ in range(at_least("chains", chains, 1))]
        self._differences: list[float] = []

    def ask(self, n: int) -> list[Candidate]:
        for chain in self._chains:
            if self._proposals.queued >= n:
                break
            self._advance(chain)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)
        told = {evaluation.candidate.levels for evaluation in evaluations}
        for chain in self._chains:
            if chain.waits_for in told:
                self._settle(chain)

    def _advance(self, chain: Chain) -> None:
        """Steps over known networks until the chain waits for an answer or has ended."""
        for _ in range(ATTEMPTS):
            if chain.waits_for is not None or chain.steps >= self._steps:
                return
            here = chain.at
            chain.waits_for = self._goal.random(self._rng) if here is None else self._goal.swapped(here, self._rng)
            if not self._proposals.add(chain.waits_for):
                self._settle(chain)

    def _settle(self, chain: Chain) -> None:
        """Accepts or rejects the network that a chain waits for; one without an answer counts as failed."""
        levels, chain.waits_for = chain.waits_for, None
        chain.steps += 1
        if levels not in self._proposals.losses:
            return
        loss = self._goal.loss(self._proposals.losses[levels])
        if chain.at is None or self._accepts(loss - chain.loss, chain.steps):
            chain.at, chain.loss = levels, loss

    def _accepts(self, difference: float, step: int) -> bool:
        """The Metropolis rule; an improvement is always accepted, and an equal loss without drawing."""
        if difference:
            self._differences.append(abs(difference))
        if difference <= 0:
            return True
        share = step / self._steps
        temperature = self._hot ** (1 - share) * self._cold**share * float(np.median(self._differences))
        return bool(self._rng.random() < math.exp(-difference / temperature))
