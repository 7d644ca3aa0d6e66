"""Genetic search for the best network within one budget, after MetaPruning and MMRazor.

Liu et al., MetaPruning: Meta Learning for Automatic Neural Network Channel Pruning, ICCV 2019,
https://arxiv.org/abs/1903.10258, section 3.2; the evolution search of MMRazor, https://github.com/open-mmlab/mmrazor,
after Guo et al., Single Path One-Shot Neural Architecture Search, ECCV 2020, https://arxiv.org/abs/1904.00420.
Departures: a child is moved to just below the budget, where theirs are drawn again until one is within a window, which
may never happen; children are bred when they are asked for, from the best answered so far, and not generation by
generation; the best `parents` of everything measured breed, which is equivalent to their archive.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals

ATTEMPTS = 100  # largest number of consecutive children that are known already

Mutation = Literal["reset", "blend"]


class GeneticSearch:
    """Random networks first, then mutants and crossover children of two of the best, half of each.

    Ends when nothing new is bred.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        budget: the limit, as a share of the first cost.
        population: the number of random networks to start with.
        parents: the number of best networks that breed.
        mutation: "reset" moves a unit by a random number of levels, modulo their number, as in MetaPruning; "blend"
            moves it to the level of a fresh random network, as in MMRazor.
        rate: the probability that a mutation moves a unit.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        budget: float = 0.5,
        population: int = 50,
        parents: int = 10,
        mutation: Mutation = "reset",
        rate: float = 0.1,
    ) -> None:
        if mutation not in get_args(Mutation):
            raise ConfigError(f"expected mutation to be one of {list(get_args(Mutation))}, got {mutation!r}")
        if not 0 < rate <= 1:
            raise ConfigError(f"expected rate to be a probability above 0, got {rate!r}")
        self._proposals = Proposals(problem)
        self._goal = make_goal(problem, budget)
        self._population = at_least("population", population, 1)
        self._parents = at_least("parents", parents, 1)
        self._mutation, self._rate = mutation, rate
        self._rng = np.random.default_rng(seed)
        self._asked = 0
        self._best: list[Levels] = []  # ties: the first one in front

    def ask(self, n: int) -> list[Candidate]:
        while self._proposals.queued < n and self._breed():
            pass
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        new = [evaluation.candidate.levels for evaluation in self._proposals.record(evaluations)]
        losses = self._proposals.losses
        self._best = sorted([*self._best, *new], key=lambda levels: self._goal.loss(losses[levels]))[: self._parents]

    def _breed(self) -> bool:
        """Queues one more network; False if everything bred is known."""
        for _ in range(ATTEMPTS):
            if self._proposals.add(self._child()):
                self._asked += 1
                return True
        return False

    def _child(self) -> Levels:
        best = self._best
        if self._asked < self._population or not best:
            return self._goal.random(self._rng)
        drawn = self._rng.permutation(len(best))
        first, second = np.array(best[drawn[0]]), np.array(best[drawn[-1]])
        if self._rng.random() < 0.5:
            return self._goal.fitted(self._mutated(first), self._rng)
        take = self._rng.random(len(first)) < 0.5
        return self._goal.fitted(np.where(take, first, second), self._rng)

    def _mutated(self, levels: np.ndarray) -> np.ndarray:
        sizes = self._goal.problem.space.sizes
        if self._mutation == "reset":
            other = (levels + self._rng.integers(1, np.maximum(sizes, 2))) % sizes
        else:
            other = np.array(self._goal.random(self._rng))
        return np.where(self._rng.random(len(levels)) < self._rate, other, levels)
