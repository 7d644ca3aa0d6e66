"""Local search along the front: samples between two neighbouring members, mostly where samples gained most.

Pareto local search (Paquete, Chiarandini and Stuetzle, Pareto Local Optimum Sets in the Biobjective Traveling Salesman
Problem, 2004, https://doi.org/10.1007/978-3-642-17144-4_7) samples around the members of a front. Departures: a sample
combines two members that are neighbours by cost; the pair is chosen by a bandit (searchers.common.bandit), whose arms
are the gaps between members and whose reward is the front's gain by a sample from there (searchers.common.gains).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Candidate, Levels
from autoprune.plan.ladder import coarse_to_fine, ladder
from autoprune.plan.repair import mutated, repair, stratified
from autoprune.searchers.common.bandit import Arm, BanditRule, check_rule, ranked
from autoprune.searchers.common.gains import Gains
from autoprune.searchers.common.proposals import Proposals

ATTEMPTS = 10  # largest number of consecutive samples of one gap that are known already


@dataclass(frozen=True)
class Gap:
    """Two neighbours of the front by cost, the cheaper one first, and the costs between them.

    At both ends of the front, a member paired with itself, and the costs beyond it.
    """

    left: Levels
    right: Levels
    above: float
    below: float


class NeighboursSearch:
    """Samples between neighbours of the front, after a ladder of uniform networks if nothing was told before.

    Ends when nothing new can be sampled or drawn; spaces of up to 65,536 networks are finished systematically.

    Args:
        problem: the problem to search.
        seed: seed of the random generator.
        rungs: the largest number of uniform networks to start with.
        rule: the bandit's rule, "ucb" or "thompson".

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, problem: Problem, *, seed: int = 0, rungs: int = 12, rule: BanditRule = "thompson") -> None:
        self._proposals = Proposals(problem)
        self._rungs = at_least("rungs", rungs, 1)
        self._rule = check_rule(rule)
        self._cost = primary_cost(problem)
        self._range = cost_range(problem, self._cost)
        self._rng = np.random.default_rng(seed)
        self._gains = Gains()
        self._gaps: list[Gap] = []
        self._arms: list[Arm] = []  # arms of the gaps
        self._samples: dict[Levels, Arm] = {}  # pending networks, with the gap they were sampled from
        self._started = False

    def ask(self, n: int) -> list[Candidate]:
        problem = self._proposals.problem
        if not self._started and not self._gaps:
            for levels in coarse_to_fine(ladder(problem, self._rungs)):
                self._proposals.add(levels)
        self._started = True
        while self._proposals.queued < n and self._sample():
            pass
        if not (self._proposals.queued or self._proposals.waiting):
            for levels in [*map(tuple, stratified(problem, self._rng, n)), *self._proposals.remaining(n)]:
                self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        usable = {evaluation.candidate.levels for evaluation in self._proposals.record(evaluations)}
        for levels in dict.fromkeys(evaluation.candidate.levels for evaluation in evaluations):
            arm = self._samples.pop(levels, None)
            reward = self._learn(levels, levels in usable)
            if arm is not None:
                arm.open -= 1
                arm.rewards.append(reward)

    def _learn(self, levels: Levels, usable: bool) -> float:
        """The reward of an answer; the gap that it divides passes its rewards on to both parts."""
        inside = usable and bool(self._proposals.problem.feasible(np.array([levels]))[0])
        before = self._gains.front
        reward = self._gains.add(levels, self._proposals.losses[levels] if inside else None)
        if self._gains.front is not before:
            self._divide()
        return reward

    def _divide(self) -> None:
        """The gaps of the present front; a new one inherits the rewards of the gap that contained its middle."""
        rows = list(self._gains.front)
        costs = self._proposals.problem.cost_values(np.array(rows), (self._cost,))[self._cost]
        order = np.argsort(costs, kind="stable")
        rows, values = [rows[index] for index in order], costs[order].tolist()
        ends = [self._range[0], *values, self._range[1]]
        pairs = zip([rows[0], *rows], [*rows, rows[-1]], ends, ends[1:], strict=False)
        gaps = [Gap(*pair) for pair in pairs if pair[2] < pair[3]]
        known = {(gap.above, gap.below): arm for gap, arm in zip(self._gaps, self._arms, strict=True)}
        self._arms = [known.get((gap.above, gap.below)) or self._inherited(gap) for gap in gaps]
        self._gaps = gaps

    def _inherited(self, new: Gap) -> Arm:
        """A copy of the arm of the gap that contains the middle of a new one."""
        middle = (new.above + new.below) / 2
        old = (arm for gap, arm in zip(self._gaps, self._arms, strict=True) if gap.above <= middle <= gap.below)
        return next((arm.copy() for arm in old), Arm())

    def _sample(self) -> bool:
        """Queues one new network of the best gap, by the bandit's rule, that still yields any; False if none does."""
        for index in ranked(self._rule, self._arms, self._rng):
            for _ in range(ATTEMPTS):
                levels = self._between(self._gaps[index])
                if self._proposals.add(levels):
                    self._arms[index].open += 1
                    self._samples[levels] = self._arms[index]
                    return True
        return False

    def _between(self, gap: Gap) -> Levels:
        """Each unit from either neighbour, and a few units moved by a few levels.

        We first moved all samples to a cost within the gap; the many random steps that this takes undo the neighbours'
        quality.
        """
        problem = self._proposals.problem
        levels = np.where(self._rng.random(len(gap.left)) < 0.5, gap.left, gap.right)
        return tuple(repair(problem, mutated(problem, levels, self._rng), self._rng).tolist())
