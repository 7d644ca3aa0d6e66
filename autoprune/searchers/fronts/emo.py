"""Divide and conquer: fronts of consecutive parts of the network, each searched separately, combined to whole networks.

EMO-DIR (Shang et al., A Multi-objective Complex Network Pruning Framework Based on Divide-and-conquer and Global
Performance Impairment Ranking, 2023, https://arxiv.org/abs/2303.16212; first named EMO-PMS). Departures: parts are not
trained to keep their interfaces, but measured within the whole network with all else dense, so the global impairment by
which the paper ranks the members of a part's front is the measured value itself; combinations are not searched for by
another evolution, but are those of least summed damage for a ladder of budgets, at the joint network's own cost
(plan.joins), and are measured as whole networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import nondominated
from autoprune.core.options import at_least
from autoprune.core.problem import Problem, cost_range, primary_cost
from autoprune.core.space import Candidate, Levels
from autoprune.plan.allocation import reachable
from autoprune.plan.damages import damage_name, damages_by_levels, reference, reference_damage
from autoprune.plan.joins import Choices, Joiner, restricted
from autoprune.searchers.common.proposals import Proposals
from autoprune.searchers.fronts.evolution import EvolutionSearch


@dataclass
class Part:
    """A part of the network: units at (p,) positions, the search over them, and its proposals without an answer."""

    units: np.ndarray
    search: EvolutionSearch
    proposed: int = 0
    waits_for: set[Levels] = field(default_factory=set)
    ended: bool = False

    def ask(self, start: Levels) -> Levels | None:
        """(u,) levels of its next network, all other units as in `start`; None if it has none at present."""
        asked = [] if self.ended else self.search.ask(1)
        if not asked:
            self.ended |= not self.waits_for
            return None
        self.proposed += 1
        levels = np.array(start)
        levels[self.units] = asked[0].levels
        self.waits_for.add(tuple(levels.tolist()))
        return tuple(levels.tolist())

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Takes in answers for networks in which no other unit differs from the start."""
        self.waits_for.difference_update(evaluation.candidate.levels for evaluation in evaluations)
        self.search.tell([replace(e, candidate=self._cut(e.candidate)) for e in evaluations])

    def _cut(self, candidate: Candidate) -> Candidate:
        return replace(candidate, levels=tuple(candidate.levels[unit] for unit in self.units))


class EmoSearch:
    """Searches `parts` groups of consecutive units side by side, combines their fronts at `plans` budgets, and ends.

    While a part is searched, all other units stay as in the reference network: dense, or the widest uniform network
    that leaves room within the bounds.

    Args:
        problem: the problem to search.
        seed: seed of the parts' searches.
        parts: the number of parts.
        networks: the number of networks to measure per part.
        population: the size of each part's population.
        plans: the number of budgets at which parts are combined.

    Raises:
        ConfigError: an option is out of range, or the problem has no measured objective.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        parts: int = 4,
        networks: int = 60,
        population: int = 20,
        plans: int = 24,
    ) -> None:
        damage_name(problem)  # fails early for a problem without a measured objective
        self._proposals = Proposals(problem)
        self._networks = at_least("networks", networks, 1)
        self._plans = at_least("plans", plans, 1)
        self._start = reference(problem)
        count = min(at_least("parts", parts, 1), len(problem.space.units))
        groups = np.array_split(np.arange(len(problem.space.units)), count)
        seeds = np.random.default_rng(seed).integers(2**31, size=count).tolist()
        self._parts = [
            Part(units, EvolutionSearch(restricted(problem, units, self._start), seed=own, population=population))
            for units, own in zip(groups, seeds, strict=True)
        ]
        self._measured: list[Evaluation] = []
        self._joined = False

    def ask(self, n: int) -> list[Candidate]:
        while self._proposals.queued < n and self._next():
            pass
        if not (self._joined or self._proposals.queued or self._proposals.waiting):
            self._joined = True
            for levels in self._joins():
                self._proposals.add(levels)
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """Every part learns from the networks that differ from the reference in its own units alone."""
        self._proposals.record(evaluations)
        self._measured += evaluations
        for part in self._parts:
            part.tell([evaluation for evaluation in evaluations if self._concerns(part, evaluation)])

    def _next(self) -> bool:
        """Queues a network of the part that has proposed the fewest; False if none has any at present."""
        for part in sorted(self._parts, key=lambda part: part.proposed):
            while not self._joined and part.proposed < self._networks:
                levels = part.ask(self._start)
                if levels is None:
                    break
                if self._proposals.add(levels):
                    return True  # otherwise it is the reference, pending for another part
        return False

    def _concerns(self, part: Part, evaluation: Evaluation) -> bool:
        changed = np.flatnonzero(np.not_equal(evaluation.candidate.levels, self._start))
        return bool(np.isin(changed, part.units).all())

    def _joins(self) -> list[Levels]:
        """One join for each budget; none if all networks of a part failed."""
        problem = self._proposals.problem
        cost = primary_cost(problem)
        choices = [self._choices(part, cost) for part in self._parts]
        if not all(len(part.damages) for part in choices):
            return []
        joiner = Joiner(problem, choices, cost)
        most = cost_range(problem, cost)[1]
        budgets = np.linspace(min(joiner.least, most), most, self._plans).tolist()
        joiner.expect(budgets)
        return list(reachable(joiner.join, budgets))

    def _choices(self, part: Part, cost: str) -> Choices:
        """The networks of a part that are not dominated in damage and cost, by rising damage."""
        own = [evaluation for evaluation in self._measured if self._concerns(part, evaluation)]
        measured = damages_by_levels(self._proposals.problem, own)
        least = reference_damage(self._proposals.problem, self._start, measured)
        rows = [levels for levels, damage in measured.items() if np.isfinite(damage)]
        levels = np.array(rows, dtype=np.int64).reshape(len(rows), len(self._start))
        done = np.array([max(measured[row] - least, 0.0) for row in rows])
        costs = self._proposals.problem.cost_values(levels)[cost]
        order = np.lexsort((costs, done))
        best = order[nondominated(np.stack([done, costs], axis=1)[order])]
        return Choices(part.units, levels[best][:, part.units], done[best])
