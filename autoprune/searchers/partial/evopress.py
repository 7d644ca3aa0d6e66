"""Evolution of one network with staged selection: many children on few examples, the best of them on more.

Sieberling, Kuznedelev, Kurtic, Alistarh, EvoPress: Accurate Dynamic Model Compression via Evolutionary Search, ICML
2025, https://arxiv.org/abs/2410.14649, algorithm 1: (1 + lambda) with level switches that keep the budget. With several
`rounds` Li et al., Tyr-the-Pruner: Structural Pruning LLMs via Global Sparsity Distribution Optimization, NeurIPS 2025,
https://arxiv.org/abs/2503.09657: coarse steps first, around the best so far, halved from round to round. Departures:
stages are prefixes of one order of the selection examples, of which survivors are scored only on the new ones, where
theirs are drawn afresh, and the parent's loss is remembered where theirs is measured anew; levels need not cost the
same, as a child is moved to just below the budget; a unit is never switched with itself; no network is measured twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.plan.idle import IdleWidths
from autoprune.plan.ladder import uniform_levels
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.partial.rungs import Rungs

ATTEMPTS = 100  # largest number of consecutive children that are known already


class EvoPressSearch:
    """Generations of children of the best network so far, of which ever fewer pass from stage to stage.

    Ends if no child is new or, with several `rounds`, after `generations` of the last.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        budget: the limit, as a share of the first cost.
        offspring: the number of children per generation.
        survivors: for each stage but the last, the number of children that pass it.
        shares: for each stage, the share of the selection set to score on; they rise to 1.
        switches: the largest number of pairs of units that a child changes, one wider and one narrower.
        rounds: the number of rounds; steps are 2 ** (rounds - 1) levels in the first and half as many in each that
            follows.
        generations: the number of generations per round, with several rounds.
        reach: the largest distance from a round's first network, in steps.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        budget: float = 0.5,
        offspring: int = 64,
        survivors: Sequence[int] = (8, 2),
        shares: Sequence[float] = (1 / 32, 1 / 4, 1.0),
        switches: int = 3,
        rounds: int = 1,
        generations: int = 50,
        reach: int = 4,
    ) -> None:
        self.fidelities = _checked(shares, survivors)
        self._goal = make_goal(problem, budget)
        self._idle = IdleWidths(problem)
        self._rungs = Rungs(problem, self.fidelities)
        self._offspring = at_least("offspring", offspring, 1)
        self._survivors = tuple(survivors)
        self._switches = at_least("switches", switches, 1)
        self._rounds = at_least("rounds", rounds, 1)
        self._generations = at_least("generations", generations, 1)
        self._reach = at_least("reach", reach, 1)
        self._rng = np.random.default_rng(seed)
        self._born: set[Levels] = set()
        self._generation = 0
        self._rung = 0  # stage of the children that are measured now
        self._children: list[Levels] = []
        self._parent: Levels | None = None
        self._center: Levels = ()  # the first network of the round

    def ask(self, n: int) -> list[Candidate]:
        if n > 0 and not self._rungs.queued and not self._rungs.waiting:
            self._go_on()
        return self._rungs.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._rungs.record(evaluations)

    def _go_on(self) -> None:
        """Moves the survivors to the next stage; after the last, the best of them and the parent breeds."""
        survivors = self._surviving()
        if survivors and self._rung < self._rungs.top:
            self._queue(survivors, self._rung + 1)
            return
        self._parent = min([*survivors, *([self._parent] if self._parent else [])], key=self._final_loss, default=None)
        if self._parent is not None:
            self._queue(self._bred(), 0)
        else:
            self._queue(self._new(1, self._goal.random if self._born else self._first), self._rungs.top)

    def _queue(self, rows: Sequence[Levels], rung: int) -> None:
        self._children, self._rung = list(rows), rung
        self._rungs.add(rows, rung)

    def _surviving(self) -> list[Levels]:
        """The best children of this stage, in the order of their losses."""
        losses = self._rungs.losses[self._rung]
        ranked = sorted((row for row in self._children if row in losses), key=lambda row: self._goal.loss(losses[row]))
        return ranked[: (*self._survivors, len(ranked))[self._rung]]

    def _final_loss(self, levels: Levels) -> float:
        return self._goal.loss(self._rungs.losses[self._rungs.top][levels])

    def _first(self, rng: np.random.Generator) -> Levels:
        """The widest uniform network within the budget; random ones if it fails."""
        rows = uniform_levels(self._goal.problem.space)
        fits = self._goal.problem.cost_values(rows, (self._goal.cost,))[self._goal.cost] <= self._goal.budget
        return self._goal.fitted(rows[fits.argmax()] if fits.any() else rows[-1], rng)

    def _bred(self) -> list[Levels]:
        """The new children of a generation; none after the last generation of several rounds."""
        if self._rounds > 1 and self._generation >= self._rounds * self._generations:
            return []
        if self._generation % self._generations == 0 and self._parent is not None:
            self._center = self._parent
        children = self._new(self._offspring, self._child)
        self._generation += 1
        return children

    def _new(self, count: int, make: Callable[[np.random.Generator], Levels]) -> list[Levels]:
        """`count` networks that were never bred before, or fewer if too many in a row were known."""
        born: list[Levels] = []
        known = 0
        while len(born) < count and known < ATTEMPTS:
            levels = self._idle.dense(make(self._rng))
            known = known + 1 if levels in self._born else 0
            if not known:
                self._born.add(levels)
                born.append(levels)
        return born

    def _child(self, rng: np.random.Generator) -> Levels:
        """Switches as many pairs of units as the smaller of two draws."""
        levels = np.array(self._parent)
        for _ in range(rng.integers(1, self._switches + 1, size=2).min()):
            levels = self._switched(levels, rng)
        return self._goal.fitted(levels, rng)

    def _switched(self, levels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Makes one unit a step wider and another a step narrower, within the round's reach."""
        step = 2 ** (self._rounds - 1 - min(self._generation // self._generations, self._rounds - 1))
        least, most = np.zeros_like(levels), self._goal.problem.space.sizes - 1
        if self._rounds > 1:
            least = np.maximum(least, np.array(self._center) - self._reach * step)
            most = np.minimum(most, np.array(self._center) + self._reach * step)
        wider, narrower = rng.permutation(len(levels))[:2] if len(levels) > 1 else (0, 0)
        moved = levels.copy()
        moved[wider] = max(moved[wider] - step, least[wider])
        moved[narrower] = min(moved[narrower] + step, most[narrower])
        return moved


def _checked(shares: Sequence[float], survivors: Sequence[int]) -> tuple[float, ...]:
    """The stages' shares; ConfigError unless they rise to 1 and each stage but the last has its survivors."""
    rising = all(0 < a < b for a, b in itertools.pairwise(shares)) and len(shares) > 0 and shares[-1] == 1
    if not rising or len(survivors) != len(shares) - 1 or any(count < 1 for count in survivors):
        raise ConfigError(
            "expected shares that rise to 1 and, for each stage but the last, a number of survivors, got shares "
            f"{list(shares)} and survivors {list(survivors)}. Write for example shares: [0.25, 1.0], survivors: [4]."
        )
    return tuple(shares)
