"""The final front: builds its members as they are exported, verifies them, and measures them on the report set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front
from autoprune.core.problem import primary_cost
from autoprune.core.process import ending_forks
from autoprune.core.space import Candidate
from autoprune.core.statistics import wilson
from autoprune.errors import PluginError, RunFailed, VerifyError
from autoprune.measure.fitness import interval_names, share_names
from autoprune.measure.scorer import cause_of
from autoprune.plan.ladder import ROUND_SHARES, removes_branches
from autoprune.prune.modules.copies import copy_model
from autoprune.run.fingerprint.secrets import without
from autoprune.run.loop.hiding import secrets_of
from autoprune.run.records.built_file import BuiltFile
from autoprune.run.records.columns import HIGH, LOW, SELECT, check_measured
from autoprune.run.records.documents import write_checked
from autoprune.run.records.folder import RunFolder, write_text
from autoprune.run.results.building import (
    BuildAnswer,
    Measurements,
    built_and_measured,
    harm_of,
    interval_scorer,
    label,
    not_built,
)
from autoprune.run.results.exporter import DEFAULT, Exporter, ExportFacts, Format, find_exporter, is_builtin_exporter
from autoprune.run.results.front_file import FrontFile, LeftOut, to_csv
from autoprune.run.results.member import Member
from autoprune.run.results.publishing import write_export
from autoprune.run.results.team import Team, answers
from autoprune.run.session.emptied import EmptiedWeights, uniform_rivals
from autoprune.run.session.job import FRONT_SIZES, Progress
from autoprune.run.session.session import Session

_log = logging.getLogger(__name__)

NAMED = 3  # largest number of failed networks in an error message; the log has all


class Finished(NamedTuple):
    """The members of a front, and the networks that were left out of it."""

    members: tuple[Member, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Built:
    """A network as it is deployed, with its member."""

    network: nn.Module
    member: Member


@ending_forks()
def build_member(session: Session, evaluation: Evaluation) -> Built:
    """Builds the network of an evaluation, compares it with its masked original and measures it on the report set.

    Raises:
        VerifyError: the outputs of the network and its masked original differ.
        RunFailed: it cannot be built or measured for another reason; the message has the network's name and the cause.
    """
    try:
        network, measured = built_and_measured(session, session.scorer.subnet(evaluation.candidate))
        return Built(network, _member(session, evaluation, measured))
    except (VerifyError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's code may raise anything
        name = label(session.space.counts(evaluation.candidate))
        raise RunFailed(not_built(name, cause_of(error))) from error


def finish(
    session: Session,
    evaluations: Sequence[Evaluation],
    folder: RunFolder | None,
    team: Team | None = None,
    software: Mapping[str, str] | None = None,
) -> Finished:
    """Builds and measures the front of a search and writes front.csv and front.json.

    The networks on the front by the scores of the search are built, as well as the uniform network of equal cost for
    each that empties a weight (run.session.emptied). Where branches were searched beside widths, so is the front of the
    networks with removed branches: compensation improves some of these far more, so that others may dominate them by
    their scores.
    A network that cannot be built, verified or measured is left out with the cause. Networks that are dominated as
    built, or outside the bounds of measured objectives, are dropped.

    Args:
        session: the session of the run.
        evaluations: the evaluations of the search.
        folder: the run folder, if there is one.
        team: the workers of the run; without them, this process builds the networks one after the other.
        software: the versions that networks are built with. Networks that an interrupted run has built with the same
            versions are not built again.

    Raises:
        RunFailed: every network was left out with a cause; nothing is written then.
    """
    scored = [e for e in evaluations if e.ok]
    members = leading(session, scored, session.job.front_size or FRONT_SIZES[0])
    members += uniform_rivals(session, members, scored)
    kept_file = BuiltFile(folder, software or {})
    outcomes = _outcomes(session, members, team, kept_file)
    built = [outcome for outcome in outcomes if isinstance(outcome, Member)]
    left_out = [outcome for outcome in outcomes if isinstance(outcome, LeftOut)]
    if members and not built:
        raise RunFailed(_why_empty(left_out, folder))
    kept = _with_emptied(_undominated(session, built))
    _name_replaced(session, built, kept)
    if folder is not None:
        write_text(folder.front_csv, to_csv(kept))
        write_checked(folder.front_json, front_file(session, kept, left_out).to_json())
        kept_file.remove()
    return Finished(tuple(kept), tuple(left_out))


def leading(session: Session, scored: Sequence[Evaluation], size: int) -> list[Evaluation]:
    """The front by the scores, and the front of the networks with removed branches, each thinned, by rising cost."""
    objectives = session.problem.objectives
    shallow = [e for e in scored if removes_branches(session.space, e.candidate.levels)]
    fronts = [_thinned(session, Front.of(pool, objectives, session.dense_costs), size) for pool in (scored, shallow)]
    found = {e.candidate: e for front in fronts for e in front}.values()
    return sorted(found, key=lambda e: ([o.loss(e.values[o.name]) for o in objectives][::-1], e.candidate.levels))


def _thinned(session: Session, front: Front, size: int) -> Front:
    """The front with at most `size` members.

    Where branches are searched, plans are made for round shares of the first cost, and the most expensive member
    within each of these stays as long as possible. Without the logarithm, networks that are about as bad as guessing
    would take the place of better ones.
    """
    if not session.searches_branches:
        return front.thinned(size)
    cost = primary_cost(session.problem)
    limits = session.dense_costs[cost] * np.arange(1, ROUND_SHARES) / ROUND_SHARES
    inside = [[member for member in front if member.values[cost] <= limit] for limit in limits]
    dearest = [max(members, key=lambda member: member.values[cost]) for members in inside if members]
    return front.thinned(size, {member.candidate.levels for member in dearest}, by_ratio=True)


def _outcomes(
    session: Session, members: Sequence[Evaluation], team: Team | None, kept: BuiltFile
) -> list[Member | LeftOut]:
    """The members, or why they are left out, in the order given, whatever the order in which they are built."""
    outcomes: dict[Candidate, Member | LeftOut] = {}
    clean, total = without(secrets_of(session.job)), len(members)
    session.progress(Progress("front", 0, total))
    known = {levels: Measurements.from_json(measured) for levels, measured in kept.known.items()}
    for evaluation, answer in answers(session, members, team, known):
        if isinstance(answer, BuildAnswer) and answer.measured is not None:
            kept.add(evaluation.candidate.levels, asdict(answer.measured))
        outcome = outcomes[evaluation.candidate] = _outcome(session, evaluation, answer, clean)
        if isinstance(outcome, Member):
            note = f"{_gain(outcome, session)} in {answer.seconds:.1f} s"
        else:
            note = f"{sum(isinstance(each, LeftOut) for each in outcomes.values())} left out"
        session.progress(Progress("front", len(outcomes), total, note))
    return [outcomes[evaluation.candidate] for evaluation in members]


def _outcome(
    session: Session, evaluation: Evaluation, answer: Evaluation, clean: Callable[[str], str]
) -> Member | LeftOut:
    """The member, or the cause why it is left out, from which `clean` removes secrets; the others are not affected."""
    name, cause, said = label(session.space.counts(evaluation.candidate)), answer.cause, ""
    if isinstance(answer, BuildAnswer):
        said = answer.said
        for warning in answer.warnings:
            _log.warning("%s", clean(warning))
        if answer.measured is not None:
            try:
                return _member(session, evaluation, answer.measured)
            except Exception as error:  # the names that a user's fitness reports, and a user's costs
                cause = cause_of(error)
    _log.error("left out of the front: %s", clean(said or not_built(name, cause)))
    return LeftOut(name, evaluation.candidate.levels, clean(cause))


def _why_empty(left_out: Sequence[LeftOut], folder: RunFolder | None) -> str:
    causes = "; ".join(f"{member.candidate}: {member.cause}" for member in left_out[:NAMED])
    more = f"; and {len(left_out) - NAMED} more, which the log names" if len(left_out) > NAMED else ""
    again = f" and continue with: autoprune resume {folder.path}" if folder is not None else " and search again."
    return (
        f"none of the {len(left_out)} networks on the front of the search could be built and measured "
        f"({causes}{more}). The evaluations of the search are not lost: correct the cause{again}"
    )


def _undominated(session: Session, members: Sequence[Member]) -> list[Member]:
    """The members within all bounds that no other member dominates on the selection set."""
    as_built = [Evaluation(Candidate(member.levels), member.as_built) for member in members]
    admitted = [evaluation for evaluation in as_built if session.admits(evaluation)]
    kept = {e.candidate.levels for e in Front.of(admitted, session.problem.objectives, session.dense_costs).members}
    return [member for member in members if member.levels in kept]


def _name_replaced(session: Session, built: Sequence[Member], members: Sequence[Member]) -> None:
    """Logs the networks with emptied weights that were on the front during the search but are dominated as built."""
    kept, emptied = {member.levels for member in members}, EmptiedWeights(session)
    for member in built:
        least = emptied.of(Candidate(member.levels))
        if least and member.levels not in kept:
            _log.warning(
                "left out of the front, as another network is better as built: %s, which keeps %s",
                member.candidate,
                ", ".join(f"{count:,} entries of {name}" for name, count in least.items()),
            )


def _with_emptied(members: Sequence[Member]) -> list[Member]:
    """The members; if one has a count of emptied weights, all get one, and the log names the weights."""
    if all(member.emptied is None for member in members):
        return list(members)
    for member in members:
        if member.emptied:
            _log.warning("nothing is left of %s in %s", ", ".join(member.emptied_weights or ()), member.candidate)
    return [replace(member, emptied=member.emptied or 0) for member in members]


def _gain(member: Member, session: Session) -> str:
    """The change of the first measured objective by building, as in "kl 0.64 -> 0.21"."""
    name = next((o.name for o in session.problem.objectives if o.name in member.search), None)
    return "built" if name is None else f"{name} {member.search[name]:.4g} -> {member.select[name]:.4g}"


def front_file(session: Session, members: Sequence[Member], left_out: Sequence[LeftOut] = ()) -> FrontFile:
    """The content of front.json for a front; the objectives have the names of their columns."""
    costs = session.dense_costs
    objectives = ((o.name if o.name in costs else SELECT + o.name, o.direction) for o in session.problem.objectives)
    return FrontFile(tuple(members), tuple(objectives), costs, tuple(left_out))


def rebuild_member(session: Session, member: Member) -> Built:
    """Builds, verifies and measures the network of a member again."""
    return build_member(session, member.evaluation)


def export_member(session: Session, member: Member, directory: Path, format: Format = DEFAULT) -> Member:
    """Builds the network of a member again and writes it with its new measurements."""
    exporter = find_exporter(format)  # fails early, before the network is built
    return write_member(session, rebuild_member(session, member), directory, exporter)


def write_member(session: Session, built: Built, directory: Path, exporter: Exporter | None = None) -> Member:
    """Writes a network that was just built."""
    recipe = session.bank.subnet(built.member.counts).recipe
    exporter = exporter or find_exporter(DEFAULT)
    dense = session.model if is_builtin_exporter(exporter) else copy_model(session.model)  # users' code may write to it
    examples = {name: facts["examples"] for name, facts in session.data.description["sets"].items()}
    origin = {"job": session.job.document, "examples": examples}
    facts = ExportFacts(dense, recipe, built.member.to_json(), origin)
    write_export(built.network, facts, session.data.example, directory, exporter)
    return built.member


def _member(session: Session, evaluation: Evaluation, measured: Measurements) -> Member:
    """The member of an evaluation and the measurements of its network.

    It has the names and number of weights without any entry left, if the search puts zeros into weights or if there are
    such weights.
    """
    report, intervals = _reported(session, measured.report, measured.as_built)
    counts = session.space.counts(evaluation.candidate)
    costs = session.problem.costs_of(evaluation.candidate)
    search = {name: value for name, value in evaluation.values.items() if name not in costs}
    counted = bool(session.weights or measured.emptied)
    return Member(
        candidate=label(counts),
        levels=evaluation.candidate.levels,
        counts=counts,
        costs=costs,
        ratios={name: value / session.dense_costs[name] for name, value in costs.items()},
        report=report,
        select={**search, **measured.as_built},
        search=search,
        intervals=intervals,
        verify_error=measured.verify_error,
        density=costs["nonzeros"] / costs["params"] if session.weights else None,
        fit=measured.fit,
        steps=measured.steps if session.job.finetune else None,
        harm=measured.harm or None,
        emptied=len(measured.emptied) if counted else None,
        emptied_weights=measured.emptied if counted else None,
    )


def remeasured(session: Session, member: Member, network: nn.Module) -> Member:
    """The member with the measurements of another network of its widths, such as a recovered one."""
    selected = session.selected(network)
    report, intervals = _reported(session, interval_scorer(session.scorer).measure(network, session.reported), selected)
    harm = harm_of(session.scorer, network, session.reported) or None
    return replace(member, report=report, intervals=intervals, select={**member.search, **selected}, harm=harm)


def _reported(
    session: Session, measured: Mapping[str, float], selected: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """The values on the report set without the ends of intervals, and the intervals; the names are checked."""
    report = {name: value for name, value in measured.items() if name not in _ends(session)}
    for values in (report, selected):
        _check_reported(session, values)
    return report, _intervals(session, measured)


def _check_reported(session: Session, measured: Mapping[str, float]) -> None:
    """Raises PluginError if the fitness reports other names than for the dense network, or names of columns."""
    check_measured(measured, session.dense_costs)
    also = {*session.dense_costs, *session.scorer.also}
    missing = [o.name for o in session.job.objectives if o.name not in also and o.name not in measured]
    if missing:
        raise PluginError(f"expected the fitness to report {missing}, it reported {sorted(measured)}")


def _ends(session: Session) -> set[str]:
    """The names of the ends of the intervals that the fitness computes."""
    return {name + end for name in interval_names(session.job.fitness) for end in (LOW, HIGH)}


def _intervals(session: Session, measured: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """The 95 % confidence intervals by name: those that the fitness computes, and those of shares, given the number of
    examples.
    """
    computed = {name: (measured[name + LOW], measured[name + HIGH]) for name in interval_names(session.job.fitness)}
    shares = [name for name in share_names(session.job.fitness) if 0 <= measured.get(name, -1) <= 1]
    if not shares:
        return computed
    count = sum(batch.examples for batch in session.reported)
    return computed | {name: wilson(measured[name], count) for name in shares}
