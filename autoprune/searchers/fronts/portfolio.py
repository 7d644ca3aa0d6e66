"""Several searchers side by side, where a bandit asks the one whose recent networks made the front grow most.

Adaptive operator selection by a multi-armed bandit (Fialho, Da Costa, Schoenauer and Sebag, Analyzing bandit-based
adaptive operator selection mechanisms, 2010, https://doi.org/10.1007/s10472-010-9213-y), with whole searchers in place
of operators. Departures: searchers that pay off only once they are complete, such as plans from probes, come before the
bandit, which would give them up; the reward is the rank of the hypervolume that an answer adds
(searchers.common.gains); arms end and leave; all learn from all answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError
from autoprune.searchers import make_inner_searcher
from autoprune.searchers.common.bandit import Arm, BanditRule, check_rule, ranked
from autoprune.searchers.common.gains import Gains
from autoprune.searchers.common.proposals import Proposals

MOST_REPEATS = 100  # after this many consecutive proposals that others made before, another arm is asked
ADDITIVE_PROBES = 96  # total number of probes of the additive arm

Options = Mapping[str, Any]
NamedSearchers = Mapping[str, Options | None] | Sequence[str]  # searchers by name, with options or without


@dataclass
class Standing:
    """One arm: its searcher, the number of networks that it proposed first, and whether it has ended."""

    searcher: Searcher
    proposed: int = 0
    ended: bool = False
    arm: Arm = field(default_factory=Arm)
    waits_for: set[Levels] = field(default_factory=set)  # networks it proposed, first or not, that lack an answer


class PortfolioSearch:
    """Runs some searchers one after the other, then lets a bandit choose an arm for each network.

    All searchers are told every answer; a proposal that another one made before is answered from memory. Ends when all
    arms have ended.

    Args:
        problem: the problem to search.
        seed: a seed from which every searcher gets its own.
        rule: the bandit's rule, "ucb" or "thompson" (see searchers.common.bandit).
        arms: names of searchers, or a mapping from names to options; None for `default_arms`.
        first: searchers to run to their end before the arms, in the same form; None for `default_first`, a ladder and
            plans from probes.

    Raises:
        ConfigError: there is no arm, or a searcher or an option is unknown.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        rule: BanditRule = "ucb",
        arms: NamedSearchers | None = None,
        first: NamedSearchers | None = None,
    ) -> None:
        self._rule = check_rule(rule)
        self._proposals = Proposals(problem)
        self._rng = np.random.default_rng(seed)
        self._first = list(self._made(default_first(problem) if first is None else first).values())
        self.standings = self._made(default_arms(problem) if arms is None else arms)
        if not self.standings:
            raise ConfigError("expected at least one searcher as an arm of the portfolio, got none")
        self._gains = Gains()
        self._answers: dict[Levels, Evaluation] = {}
        self._asked_by: dict[Levels, Standing] = {}  # pending networks

    @property
    def remark(self) -> str:
        """The arm with the largest gains at present; empty before the first gain."""
        best = max(self.standings, key=lambda name: self.standings[name].arm.mean)
        return f"{best} gains most" if self.standings[best].arm.mean > 0 else ""

    def ask(self, n: int) -> list[Candidate]:
        while self._proposals.queued < n and self._propose():
            pass
        return self._proposals.take(n)

    def tell(self, evaluations: Sequence[Evaluation]) -> None:
        """All arms learn from every answer; the one that proposed a network first is rewarded for it."""
        usable = {evaluation.candidate.levels for evaluation in self._proposals.record(evaluations)}
        for evaluation in evaluations:
            levels = evaluation.candidate.levels
            if levels in self._answers:
                continue
            self._answers[levels] = evaluation
            reward = self._gains.add(levels, self._proposals.losses[levels] if levels in usable else None)
            standing = self._asked_by.pop(levels, None)
            if standing is not None:
                standing.arm.open -= 1
                standing.arm.rewards.append(reward)
        told = {evaluation.candidate.levels for evaluation in evaluations}
        for standing in (*self._first, *self.standings.values()):
            standing.waits_for -= told
            standing.searcher.tell(evaluations)

    def _made(self, named: NamedSearchers) -> dict[str, Standing]:
        """One searcher per name, each with its own seed."""
        options = {name: (named[name] if isinstance(named, Mapping) else None) or {} for name in named}
        seeds = self._rng.integers(2**31, size=len(options)).tolist()
        problem = self._proposals.problem
        pairs = zip(options, seeds, strict=True)
        return {name: Standing(make_inner_searcher(name, problem, seed=s, **options[name])) for name, s in pairs}

    def _propose(self) -> bool:
        """Queues a proposal of the best arm that has a new one; False if none has at present."""
        while self._first:
            levels = self._new(self._first[0])
            if levels is not None:
                return self._proposals.add(levels)
            if not self._first[0].ended:
                return False
            self._first.pop(0)
        alive = [standing for standing in self.standings.values() if not standing.ended]
        for index in ranked(self._rule, [standing.arm for standing in alive], self._rng):
            levels = self._new(alive[index])
            if levels is not None and self._proposals.add(levels):
                alive[index].proposed += 1
                alive[index].arm.open += 1
                self._asked_by[levels] = alive[index]
                return True
        return False

    def _new(self, standing: Standing) -> Levels | None:
        """An arm's next proposal that no arm made before; None if it waits for answers or has ended."""
        for _ in range(MOST_REPEATS):
            asked = standing.searcher.ask(1)
            if not asked:
                standing.ended = not standing.waits_for
                return None
            levels = asked[0].levels
            if levels in self._answers:
                standing.searcher.tell([self._answers[levels]])
                continue
            standing.waits_for.add(levels)
            if not self._proposals.knows(levels):
                return levels
        return None


def default_arms(problem: Problem) -> dict[str, Options]:
    """Evolution, refinements of plans, samples along the front, and random networks."""
    return {"evolution": {}, **_plans(problem, plans=1, refined=3), "neighbours": {}, "random": {}}


def default_first(problem: Problem) -> dict[str, Options]:
    """A ladder of uniform networks, and plans from about 96 probes."""
    return {"uniform": {"rungs": 12}, **_plans(problem, plans=24, refined=0)}


def _plans(problem: Problem, plans: int, refined: int) -> dict[str, Options]:
    """Options for plans from the same probes, if the problem has a measured objective."""
    if problem.distortion is None and all(o.name in problem.costs.names for o in problem.objectives):
        return {}
    probes = max(2, ADDITIVE_PROBES // len(problem.space.units))
    return {"additive": {"plans": plans, "probe_levels": probes, "refined": refined}}
