"""Greedy paths from the widest network down: every round tries one move of each unit and keeps the best.

"autoslim": Yu and Huang, AutoSlim: Towards One-Shot Architecture Search for Channel Numbers, 2019,
https://arxiv.org/abs/1903.11728, algorithm 1: moves of one level per unit; the least loss is kept. "netadapt": Yang et
al., NetAdapt: Platform-Aware Neural Network Adaptation for Mobile Applications, ECCV 2018,
https://arxiv.org/abs/1804.03230, algorithm 1: for each unit the widest level that alone saves a given share of the
cost, which falls from round to round; the least loss per cost saved is kept. Departures: no fine-tuning between rounds;
if bounds forbid the dense network the path starts at the widest uniform network within them; a unit that cannot save
enough alone offers its last level.

With `stages` the units take turns, as in Munoz, Yuan and Jain, MultiPruner: Balanced Structure Removal in Foundation
Models, 2025, https://arxiv.org/abs/2501.09949: first branches, then neurons, then heads, each for a share of what has
to go.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.plan.greedy import unit_costs
from autoprune.plan.ladder import ladder
from autoprune.searchers.common.goal import make_goal
from autoprune.searchers.common.proposals import Proposals
from autoprune.searchers.rules.stages import Stages

GreedyRule = Literal["autoslim", "netadapt"]


class GreedySearch:
    """One path, whose networks and all alternatives tried along it form a whole front from one run.

    Ends at the smallest network, at the budget of the stages, or if all alternatives of a round failed.

    Args:
        problem: the problem to search.
        seed: unused; the search is deterministic.
        rule: "autoslim" or "netadapt".
        first_cut: for netadapt, the share of the dense cost that the first round saves.
        decay: for netadapt, round k saves `first_cut * decay ** k` of the dense cost.
        stages: patterns of unit names (* ? [abc]), each with its share of the cost to save; units are narrowed only in
            the stage of the first pattern that matches them. None: all units all the time.
        budget: with stages, the share of the first cost at which the path ends.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        rule: GreedyRule = "autoslim",
        first_cut: float = 0.025,
        decay: float = 0.96,
        stages: Mapping[str, float] | None = None,
        budget: float = 0.5,
    ) -> None:
        if rule not in get_args(GreedyRule):
            raise ConfigError(f"expected rule to be one of {list(get_args(GreedyRule))}, got {rule!r}")
        if not (0 < first_cut < 1 and 0 < decay <= 1):
            raise ConfigError(f"expected first_cut and decay as shares, got {first_cut!r} and {decay!r}")
        self._proposals = Proposals(problem)
        self._goal = make_goal(problem, 1.0 if stages is None else budget)
        self._stages = None if stages is None else Stages(problem, self._goal.cost, self._goal.budget, stages)
        self._rule, self._first_cut, self._decay = rule, first_cut, decay
        self._at: Levels | None = None
        self._round = 0
        self._tried: list[Levels] = []
        self._ended = False

    def ask(self, n: int) -> list[Candidate]:
        while not (self._ended or self._proposals.queued or self._proposals.waiting):
            self._next_round()
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        self._proposals.record(evaluations)

    def _next_round(self) -> None:
        """Keeps the best move and tries the moves from there; known networks need no new answer."""
        if self._at is None:
            self._at = ladder(self._goal.problem, 1)[0]
            self._tried = [self._at]
        else:
            best = min(self._tried, key=self._price, default=None)
            if best is None or math.isinf(self._price(best)):
                self._ended = True
                return
            self._at, self._round = best, self._round + 1
            self._tried = self._moves(self._at)
        for levels in self._tried:
            self._proposals.add(levels)

    def _price(self, levels: Levels) -> float:
        """The price of a move: the loss, for netadapt its rise per cost saved; infinite if the network failed."""
        if levels not in self._proposals.losses:
            return math.inf
        loss = self._goal.loss(self._proposals.losses[levels])
        if self._rule == "autoslim" or self._at is None or levels == self._at:
            return loss
        saved = float(np.subtract(*self._goal.problem.cost_values(np.array([self._at, levels]))[self._goal.cost]))
        return (loss - self._goal.loss(self._proposals.losses[self._at])) / saved

    def _moves(self, at: Levels) -> list[Levels]:
        """One narrower network for every unit that can be narrowed, within all bounds and at less cost."""
        problem, sizes = self._goal.problem, self._goal.problem.space.sizes
        costs = unit_costs(problem, np.array(at), self._goal.cost)
        now = costs[0, at[0]]
        wanted = self._first_cut * self._decay**self._round * problem.reach()[self._goal.cost][1]
        rows = []
        for unit in range(len(at)) if self._stages is None else self._stages.open_units(at):
            narrower = np.arange(at[unit] + 1, sizes[unit])
            if self._rule == "netadapt" and len(narrower):
                enough = narrower[now - costs[unit, narrower] >= wanted]
                narrower = enough if len(enough) else narrower[-1:]
            if len(narrower) and costs[unit, narrower[0]] < now:
                rows.append((*at[:unit], int(narrower[0]), *at[unit + 1 :]))
        inside = problem.feasible(np.array(rows)) if rows else ()
        return [row for row, fits in zip(rows, inside, strict=True) if fits]
