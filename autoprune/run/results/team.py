"""Answers for the networks of a front: from the workers of a run, or from this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import primary_cost
from autoprune.core.space import Candidate, Levels
from autoprune.errors import AutopruneError
from autoprune.run.results.building import BuildAnswer, Measurements, MemberBuilder, build_answer
from autoprune.run.session.session import Session

_log = logging.getLogger(__name__)


class Team(Protocol):
    """The workers of a run (run.executors.pool)."""

    def carry(self, builder: MemberBuilder) -> None:
        """Sends a builder to all workers. PluginError or RunFailed if that is not possible."""
        ...

    def build(self, candidate: Candidate) -> None:
        """Starts to build a network."""
        ...

    def collect(self) -> Evaluation:
        """Waits for the next network that is built, or that no worker could build."""
        ...

    def close(self) -> None:
        """Ends all workers."""
        ...


def answers(
    session: Session, members: Sequence[Evaluation], team: Team | None, known: Mapping[Levels, Measurements]
) -> Iterator[tuple[Evaluation, Evaluation]]:
    """Yields each network of a front with its answer, in the order in which they are built.

    Workers begin with the networks of the largest cost, which take the longest, so that none of them is left when the
    others are done. If the session cannot be sent to them, they are ended and this process builds the networks.

    Args:
        session: the session of the run.
        members: the networks, with their evaluations during the search.
        team: the workers, if there are any.
        known: measurements of networks that need not be built again, by levels.
    """
    found = {member.candidate: known.get(member.candidate.levels) for member in members}
    for member in members:
        if found[member.candidate] is not None:
            yield member, BuildAnswer(member.candidate, measured=found[member.candidate])
    missing = [member for member in members if found[member.candidate] is None]
    if team is None or not missing or not _sent(session, team):
        for member in missing:
            yield member, build_answer(session, member.candidate)
    else:
        yield from _of_team(session, missing, team)


def _of_team(session: Session, members: Sequence[Evaluation], team: Team) -> Iterator[tuple[Evaluation, Evaluation]]:
    cost = primary_cost(session.problem)
    by_candidate = {member.candidate: member for member in members}
    for member in sorted(members, key=lambda member: -session.problem.costs_of(member.candidate)[cost]):
        team.build(member.candidate)
    for _ in members:
        answer = team.collect()
        yield by_candidate[answer.candidate], answer


def _sent(session: Session, team: Team) -> bool:
    """Whether the workers have what they need to build networks; if not, they are ended."""
    try:
        team.carry(MemberBuilder.of(session))
    except AutopruneError as error:
        _log.warning("this process builds the networks of the front, as they cannot be sent to workers: %s", error)
        team.close()
        return False
    return True
