"""Warns of candidates in which a weight keeps no entries, or no more than its floor, before they are evaluated."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from autoprune.core.evaluation import Evaluation
from autoprune.core.levels import floors
from autoprune.core.problem import primary_cost
from autoprune.core.space import Candidate
from autoprune.plan.ladder import uniform_levels
from autoprune.run.session.session import Session

_log = logging.getLogger(__name__)


class EmptiedWeights:
    """Logs a warning the first time that a planned network empties a weight or reduces it to its floor.

    Probes, which change one unit of the dense network, and the smallest network of the space, which shows its range,
    do not count as planned.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        units = [unit for unit in session.units if unit.name in session.weights]
        self._floors = floors(units, session.job.rules)
        self._said: set[tuple[str, bool]] = set()  # (name of the weight, whether it is emptied)

    def look(self, candidates: Sequence[Candidate]) -> None:
        """Warns of these candidates; each weight is named once as emptied and once as at its floor."""
        smallest = self._session.space.smallest.levels
        for candidate in candidates if self._floors else ():
            if sum(level > 0 for level in candidate.levels) > 1 and candidate.levels != smallest:
                self._look(candidate)

    def of(self, candidate: Candidate) -> dict[str, int]:
        """The weights that a candidate empties or keeps at their floor, with the number of entries each keeps."""
        counts, weights = self._session.space.counts(candidate), self._session.weights
        return {
            name: counts[name] for name, floor in self._floors.items() if counts[name] == floor < weights[name].width
        }

    def _look(self, candidate: Candidate) -> None:
        least = self.of(candidate)
        new = {name: count for name, count in least.items() if (name, count == 0) not in self._said}
        self._said |= {(name, count == 0) for name, count in new.items()}
        emptied = {name: count for name, count in new.items() if count == 0}
        if emptied:
            _log.warning(
                "%s keeps %s: nothing passes through a weight without entries. A floor above 0 in the rule for it "
                "prevents that (docs/sparsity.md).",
                self._network(candidate),
                self._entries(emptied),
            )
        if len(new) > len(emptied):
            at_floor = {name: count for name, count in new.items() if count}
            _log.warning("%s keeps no more than the floor: %s", self._network(candidate), self._entries(at_floor))

    def _network(self, candidate: Candidate) -> str:
        costs = self._session.problem.costs_of(candidate)
        return (
            f"a planned network with nonzeros {costs['nonzeros'] / self._session.dense_costs['nonzeros']:.4f} of dense"
        )

    def _entries(self, counts: Mapping[str, int]) -> str:
        weights = self._session.weights
        return ", ".join(f"{count:,} of {weights[name].width:,} entries of {name}" for name, count in counts.items())


def uniform_rivals(session: Session, members: Sequence[Evaluation], scored: Sequence[Evaluation]) -> list[Evaluation]:
    """Uniform networks to build besides the members of a front that empty a weight or keep one at its floor.

    For each such member, it is the scored uniform network with the largest cost that does not exceed the member's. A
    network that transmits nothing has the KL of guessing; during the search, the KL of a network that compensation
    would improve much may be larger.
    """
    emptied = EmptiedWeights(session)
    cost = primary_cost(session.problem)
    uniform = {tuple(row) for row in uniform_levels(session.space).tolist()}
    whole = [e for e in scored if e.candidate.levels in uniform and e.candidate.fidelity == 1]
    known = {e.candidate.levels: e for e in sorted(whole, key=lambda e: e.values[cost])}
    rivals = {}
    for member in members:
        cheaper = [e for e in known.values() if e.values[cost] <= member.values[cost]]
        if cheaper and emptied.of(member.candidate):
            rivals[cheaper[-1].candidate.levels] = cheaper[-1]
    built = {member.candidate.levels for member in members}
    return [rival for levels, rival in rivals.items() if levels not in built]
