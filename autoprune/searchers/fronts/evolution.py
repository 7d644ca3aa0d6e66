"""NSGA-II and NSGA-III over level vectors.

Deb, Pratap, Agarwal, Meyarivan, A fast and elitist multiobjective genetic algorithm: NSGA-II, IEEE Transactions on
Evolutionary Computation 6(2), 2002, https://doi.org/10.1109/4235.996017; selection by DEAP with the sorting of Fortin
et al. (2013). Deb and Jain, An Evolutionary Many-Objective Optimization Algorithm Using Reference-Point-Based
Nondominated Sorting Approach, Part I, IEEE Transactions on Evolutionary Computation 18(4), 2014,
https://doi.org/10.1109/TEVC.2013.2281535, by DEAP without memory of earlier extremes.

Departures: the first generation is a ladder of uniform widths, given seeds and random networks spread over the range of
the cost, not uniform draws; a mutation steps a few units by up to three levels instead of redrawing them, since levels
are ordered, or swaps cost between two units as EvoPress does (Sieberling et al., EvoPress, ICML 2025,
https://arxiv.org/abs/2410.14649, section 3; there all levels cost the same, here the wider unit takes the level that
brings the cost nearest to what it was); survivors are selected whenever an eighth of a population is answered, so that
a search of a few hundred evaluations gets more than a few generations; children outside the bounds are repaired, so
there is no constraint domination; a network known already is never proposed again; children are bred when they are
asked for, from the population selected last, so that no worker waits for the others to answer a whole generation.
DEAP's own operators draw from the global `random` and from numpy's, so the variation here draws from the searcher's
generator instead, and numpy's state is put back after NSGA-III.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import moocore
import numpy as np
from deap import base
from deap.tools import emo

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, primary_cost
from autoprune.core.process import numpy_seeded
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.plan.idle import IdleWidths
from autoprune.plan.ladder import ladder
from autoprune.plan.repair import MUTATION_STEPS, mutated, repair, stratified
from autoprune.searchers.common.proposals import Proposals

ATTEMPTS = 100  # largest number of consecutive children that are known already
Selection = Literal["nsga2", "nsga3"]

BROODS = 8  # selections per population's worth of answers
UNTOUCHED = 0.3  # share of new crossover children that are not mutated


class LossFitness(base.Fitness):  # type: ignore[misc]  # deap has no types
    """The losses of one network, lower is better, for DEAP; a single objective is padded, as the sorting needs two."""

    def __init__(self, values: Sequence[float] = ()) -> None:
        padded = (*values, 0.0) if len(values) == 1 else tuple(values)
        self.weights = (-1.0,) * max(len(padded), 2)
        self.crowding_dist = 0.0
        super().__init__(padded)


class Individual:
    """A measured network in the form DEAP expects, with the rank of its front (0 is the best)."""

    def __init__(self, levels: Levels, losses: Sequence[float]) -> None:
        self.levels = levels
        self.row = np.array(levels)
        self.fitness = LossFitness(losses)
        self.rank = 0


class EvolutionSearch:
    """A population of networks, selected anew whenever an eighth of its size has been answered.

    Ends when nothing new can be bred or drawn; spaces of up to 65,536 networks are finished systematically first.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        population: the size of the population. The first consists of dense, the ladder, the seeds and random networks,
            less the networks told before.
        rungs: the largest number of uniform networks in the first population.
        seeds: level vectors to begin with, repaired if they are outside the bounds.
        crossover: the share of children with two parents.
        swaps: the share of mutations that make one unit narrower and another wider and keep the first cost about equal.
        selection: "nsga2", or "nsga3", which spreads three and more objectives better.

    Raises:
        ConfigError: an option is out of range.
        SpaceError: a seed is not in the space.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        population: int = 40,
        rungs: int = 12,
        seeds: Sequence[Sequence[int]] = (),
        crossover: float = 0.9,
        swaps: float = 0.0,
        selection: Selection = "nsga2",
    ) -> None:
        if selection not in get_args(Selection):
            raise ConfigError(f"expected selection to be one of {list(get_args(Selection))}, got {selection!r}")
        self._selection = selection
        self._size = at_least("population", population, 2)
        self._rungs = at_least("rungs", rungs, 1)
        self._seeds = _checked(problem, seeds)
        self._crossover = _share("crossover", crossover)
        self._swaps = _share("swaps", swaps)
        self._proposals = Proposals(problem)
        self._idle = IdleWidths(problem)
        self._cost = primary_cost(problem)
        self._rng = np.random.default_rng(seed)
        self._population: list[Individual] = []
        self._fresh: list[Levels] = []  # members measured since the last selection
        self._started = False

    def ask(self, n: int) -> list[Candidate]:
        if self._is_due():
            self._population = self._survivors()
        if not self._started:
            self._started = True
            self._add_first()
        self._add_children(n)
        if not self._proposals.queued:
            self._add_random(n)
        if not self._proposals.queued:
            for levels in self._proposals.remaining(n):
                self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._fresh += [e.candidate.levels for e in self._proposals.record(evaluations)]

    def _is_due(self) -> bool:
        """Whether a brood, half of the first generation, or the whole of a smaller one has been answered."""
        if self._population:
            return len(self._fresh) >= max(1, self._size // BROODS)
        return len(self._fresh) >= self._size / 2 or not (self._proposals.waiting or self._proposals.queued)

    def _survivors(self) -> list[Individual]:
        """The best of the population and the fresh members, ranked; networks outside the bounds are left out."""
        problem = self._proposals.problem
        inside = problem.feasible(np.array(self._fresh, dtype=np.int64).reshape(-1, len(problem.space.units)))
        rows = itertools.compress(self._fresh, inside)
        pool = self._population + [Individual(levels, self._proposals.losses[levels]) for levels in rows]
        self._fresh = []
        if self._selection == "nsga2":
            return select_by_crowding(pool, self._size)
        return select_by_references(pool, self._size, self._rng)

    def _add_first(self) -> None:
        problem = self._proposals.problem
        for levels in (*ladder(problem, self._rungs), *self._seeds):
            self._proposals.add(repair(problem, np.array(levels), self._rng))
        self._add_random(self._size - self._proposals.queued - len(self._population))

    def _add_random(self, n: int) -> None:
        for levels in stratified(self._proposals.problem, self._rng, max(n, 0)):
            self._proposals.add(levels)

    def _add_children(self, n: int) -> None:
        """Breeds until n networks are queued or too many consecutive children are known already."""
        known = 0
        while self._population and self._proposals.queued < n and known < ATTEMPTS:
            child = repair(self._proposals.problem, self._child(), self._rng)
            new = self._proposals.add(self._idle.dense(child.tolist()))
            known = 0 if new else known + 1

    def _child(self) -> np.ndarray:
        """(u,) levels of a child of two parents; mutated, unless it is new and spared with a fixed probability."""
        crossed = self._crossed(self._parent(), self._parent())
        if self._rng.random() < UNTOUCHED and not self._proposals.knows(tuple(crossed.tolist())):
            return crossed
        if self._rng.random() < self._swaps and len(crossed) > 1:
            return self._swapped(crossed)
        return mutated(self._proposals.problem, crossed, self._rng)

    def _parent(self) -> Individual:
        """Binary tournament: the lower rank, then the larger crowding distance, then the first drawn."""
        first, second = (self._population[self._rng.integers(len(self._population))] for _ in range(2))
        return second if _standing(second) < _standing(first) else first

    def _crossed(self, first: Individual, second: Individual) -> np.ndarray:
        """(u,) levels, each from either parent; with probability 1 - crossover all from the first."""
        if self._rng.random() >= self._crossover:
            return first.row.copy()
        return np.where(self._rng.random(len(first.row)) < 0.5, first.row, second.row)

    def _swapped(self, levels: np.ndarray) -> np.ndarray:
        """(u,) levels with one unit one to three levels narrower, and another widened to keep the first cost."""
        problem = self._proposals.problem
        narrower, wider = self._rng.permutation(len(levels))[:2]
        moved = levels.copy()
        moved[narrower] = min(
            moved[narrower] + self._rng.integers(1, MUTATION_STEPS + 1), problem.space.sizes[narrower] - 1
        )
        rows = np.concatenate([levels[None], np.repeat(moved[None], levels[wider] + 1, axis=0)])
        rows[1:, wider] = np.arange(levels[wider] + 1)
        costs = problem.cost_values(rows, (self._cost,))[self._cost]
        return np.asarray(rows[1 + np.abs(costs[1:] - costs[0]).argmin()])


def _checked(problem: Problem, seeds: Sequence[Sequence[int]]) -> tuple[Levels, ...]:
    """The levels of the seeds; SpaceError for any outside the space."""
    rows = tuple(tuple(levels) for levels in seeds)
    for levels in rows:
        problem.space.check(Candidate(levels))
    return rows


def _share(option: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(f"expected {option} to be a share from 0 to 1, got {value!r}")
    return value


def _standing(member: Individual) -> tuple[int, float]:
    return member.rank, -float(member.fitness.crowding_dist)


def select_by_crowding(pool: Sequence[Individual], size: int) -> list[Individual]:
    """The `size` best members by rank and crowding distance (Deb et al. 2002, section III), with both set."""
    if not pool:
        return []
    return _ranked(emo.selNSGA2(list(pool), min(size, len(pool)), nd="log"))


def select_by_references(pool: Sequence[Individual], size: int, rng: np.random.Generator) -> list[Individual]:
    """The `size` best members by rank and reference direction (Deb and Jain 2014, algorithms 1 to 4).

    The number of reference directions is the largest that fits into `size`. Members of equal rank are equal in
    tournaments.
    """
    if not pool:
        return []
    count = len(pool[0].fitness.values)
    with numpy_seeded(int(rng.integers(2**32))):
        return _ranked(emo.selNSGA3(list(pool), min(size, len(pool)), _references(count, size), nd="log"))


@functools.cache
def _references(count: int, size: int) -> np.ndarray:
    """(r, m) evenly spread directions in m = `count` dimensions, the most there are with r at most `size`."""
    divisions = next(p for p in itertools.count(1) if math.comb(count + p, p + 1) > size)
    references: np.ndarray = emo.uniform_reference_points(count, divisions)
    return references


def _ranked(kept: list[Individual]) -> list[Individual]:
    """The members with their rank among each other; equal ones share a rank."""
    losses, inverse = np.unique([[*member.fitness.values] for member in kept], axis=0, return_inverse=True)
    ranks = moocore.pareto_rank(losses)
    for member, place in zip(kept, inverse.ravel().tolist(), strict=True):
        member.rank = int(ranks[place])
    return kept
