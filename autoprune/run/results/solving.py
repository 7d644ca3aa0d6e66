"""Finds the best network of a run for a budget: builds contenders and compares them on the selection set."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Candidate, Levels
from autoprune.errors import AutopruneError, InfeasibleBudget, RunFailed, VerifyError
from autoprune.plan.allocation import plan
from autoprune.plan.damage_model import DamageModel
from autoprune.plan.ladder import branches_beside_widths, removes_branches, uniform_levels
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.results.deployed import deployed
from autoprune.run.results.member import Member
from autoprune.run.results.members import build_member, export_member, write_member
from autoprune.run.results.requests import budgets_of
from autoprune.run.session.emptied import EmptiedWeights
from autoprune.run.session.job import Progress
from autoprune.run.session.session import Session

BUILT = 16  # largest number of evaluated networks, not on the front, that are built; the best by their scores

MEMBER, EVALUATED, PLAN, UNIFORM = "member of the front", "evaluated network", "plan", "uniform network"

_log = logging.getLogger(__name__)


@dataclass
class Contender:
    """A network within a budget, with its kinds, and its member if it is on the front.

    `built` has its costs and its measurements on the selection set; it is empty until the network is built.
    """

    candidate: Candidate
    sources: list[str]
    scores: Mapping[str, float] = field(default_factory=dict)
    member: Member | None = None
    built: Mapping[str, float] = field(default_factory=dict)


def solve_within(
    session: Session, members: Sequence[Member], evaluations: Sequence[Evaluation], budget: str, out: Path | None
) -> Member:
    """Finds the best network within the budget, and exports it to `out` if that is given.

    Its `solved` says what the network is, and which networks it was compared with and their values.
    """
    bounds = budgets_of(budget, session.dense_costs)
    contenders = _contenders(session, members, evaluations, bounds)
    ranked = _ranked(session, contenders, bounds)
    for best in ranked:
        try:
            member = _delivered(session, best, out)
        except VerifyError as error:
            _log.error("left out: %s", error)
            continue
        return replace(member, solved={"budget": budget, **_account(session, best, contenders)})
    raise VerifyError("no network within the budget has the output of its masked original; the log has the differences")


def _contenders(
    session: Session, members: Sequence[Member], evaluations: Sequence[Evaluation], bounds: Sequence[Bound]
) -> list[Contender]:
    """All contenders, each network once. InfeasibleBudget if there are none."""
    problem = replace(session.problem, bounds=(*session.problem.bounds, *bounds))
    scored = _scores(problem, evaluations)
    found: dict[Levels, Contender] = {}
    for member in members:
        found[member.levels] = _member(session, member)
    within = [levels for levels, scores in scored.items() if levels not in found and _is_within(scores, bounds)]
    for levels in best_scored(session, sorted(within, key=lambda levels: _key(session, scored[levels], bounds))):
        found[levels] = Contender(Candidate(levels), [EVALUATED], scored[levels])
    found = {levels: c for levels, c in found.items() if _is_within(session.problem.costs_of(c.candidate), bounds)}
    for source, levels in _made(problem, evaluations, bounds):
        contender = found.setdefault(levels, Contender(Candidate(levels), [], scored.get(levels, {})))
        contender.sources += [] if source in contender.sources else [source]
    EmptiedWeights(session).look([c.candidate for c in found.values() if PLAN in c.sources])
    if not found:
        problem.check_bounds()
        raise InfeasibleBudget(
            f"expected a network within {_shown(bounds)}, found neither a plan nor an evaluated network."
        )
    return list(found.values())


def best_scored(session: Session, ranked: Sequence[Levels]) -> list[Levels]:
    """The first BUILT of the ranked networks; up to half of them are those with removed branches, if there are any.

    Compensation improves some of these far more, so that their scores do not compare with those of others.
    """
    shallow = [levels for levels in ranked if removes_branches(session.space, levels)][: BUILT // 2]
    whole = [levels for levels in ranked if not removes_branches(session.space, levels)]
    return [*whole[: BUILT - len(shallow)], *shallow]


def _scores(problem: Problem, evaluations: Sequence[Evaluation]) -> dict[Levels, dict[str, float]]:
    """The costs and scores of the networks with full fidelity, by levels."""
    usable = [e for e in evaluations if e.candidate.fidelity == 1 and is_usable(problem, e)]
    return {e.candidate.levels: {**e.values, **problem.costs_of(e.candidate)} for e in usable}


def _made(problem: Problem, evaluations: Sequence[Evaluation], bounds: Sequence[Bound]) -> Iterator[tuple[str, Levels]]:
    """Plans for the budget on each bounded cost, and the uniform network with the largest cost within the budget.

    Where branches are searched beside widths, there is also the plan that keeps them.
    """
    model = DamageModel(problem)
    model.tell(evaluations)
    table = model.table()
    branches = branches_beside_widths(problem.space)
    keeping = table.copy()
    keeping[branches, 1:] = np.inf
    for bound in bounds:
        for damages in (table, keeping) if branches else (table,):
            try:
                yield PLAN, plan(problem, damages, bound.name, bound.value)
            except InfeasibleBudget as error:
                _log.info("no plan for %s: %s", bound, error)
    rows = uniform_levels(problem.space)
    rows = rows[problem.feasible(rows)]
    if len(rows):
        costs = problem.cost_values(rows, (bounds[0].name,))[bounds[0].name]
        yield UNIFORM, tuple(rows[int(np.argmax(costs))].tolist())


def _member(session: Session, member: Member) -> Contender:
    """The contender of a member of the front, with its values as built if all of them are known."""
    candidate = Candidate(member.levels)
    built = {**member.select, **session.problem.costs_of(candidate)}
    whole = all(o.name in built for o in (*session.problem.objectives, *session.job.objectives))
    return Contender(candidate, [MEMBER], member.search, member if whole else None, built if whole else {})


def _ranked(session: Session, contenders: Sequence[Contender], bounds: Sequence[Bound]) -> list[Contender]:
    """The contenders that can be built and are within the bounds of measured objectives, the best first."""
    usable = []
    for index, contender in enumerate(contenders):
        session.progress(Progress("compare", index, len(contenders)))
        if not contender.built:
            _build(session, contender)
        usable += [contender] if contender.built else []
    session.progress(Progress("compare", len(contenders), len(contenders)))
    if not usable:
        raise RunFailed("no network within the budget can be built; the log has the causes")
    admitted = [c for c in usable if session.admits(Evaluation(c.candidate, c.built))]
    if not admitted:
        limits = ", ".join(str(o.limit) for o in session.job.objectives if o.limit)
        best = min(usable, key=lambda c: _key(session, c.built, bounds))
        raise InfeasibleBudget(
            f"no network within {_shown(bounds)} is within the bounds of the job, {limits}, as built; the best has "
            f"{_measured(session, best)}. Raise the budget."
        )
    return sorted(admitted, key=lambda c: _key(session, c.built, bounds))


def _build(session: Session, contender: Contender) -> None:
    """Builds and measures a contender; a failure is logged."""
    try:
        if not contender.scores:
            contender.scores = _scored(session, contender.candidate)
        with torch_threads(session.scorer.scoring.form.threads):  # as members are built
            network = deployed(session, session.scorer.subnet(contender.candidate)).network
            measured = session.selected(network)
        costs = session.problem.costs_of(contender.candidate)
        contender.built = {**contender.scores, **measured, **costs}
    except AutopruneError as error:
        _log.warning("the %s is left out: %s", " and ".join(contender.sources), error)


def _scored(session: Session, candidate: Candidate) -> Mapping[str, float]:
    evaluation = session.scorer.score(candidate)
    if not evaluation.ok:
        raise RunFailed(f"it cannot be scored: {evaluation.cause}")
    return {**evaluation.values, **session.problem.costs_of(candidate)}


def _delivered(session: Session, best: Contender, out: Path | None) -> Member:
    """Measures the network on the report set, and exports it if `out` is given."""
    if best.member is not None:
        return best.member if out is None else export_member(session, best.member, out)
    built = build_member(session, Evaluation(best.candidate, best.scores))
    return built.member if out is None else write_member(session, built, out)


def _account(session: Session, best: Contender, contenders: Sequence[Contender]) -> dict[str, Any]:
    """The kind of the best network, the number of contenders by kind, and a sentence on why it is the best."""
    others = [f"the {source} has {_measured(session, c)}" for source, c in _rivals(best, contenders)]
    compared = {source: sum(source in c.sources for c in contenders) for source in (MEMBER, EVALUATED, PLAN, UNIFORM)}
    counts = ", ".join(f"{source} {count}" for source, count in compared.items() if count)
    why = f"{_measured(session, best)}, as built, on the selection set; " + "".join(f"{other}; " for other in others)
    source = " and ".join(best.sources)
    return {"source": source, "compared": compared, "why": f"{source}: {why}best of: {counts}"}


def _rivals(best: Contender, contenders: Sequence[Contender]) -> Iterator[tuple[str, Contender]]:
    """The plan and the uniform network that were worse."""
    for source in (PLAN, UNIFORM):
        for contender in contenders:
            if contender is not best and source in contender.sources and contender.built:
                yield source, contender


def _measured(session: Session, contender: Contender) -> str:
    """The first measured objective and the costs that are objectives: "kl 0.0894 at macs 151,616"."""
    objectives = session.problem.objectives
    costs = [o.name for o in objectives if o.name in session.dense_costs] or [*session.dense_costs][:1]
    values = [f"{o.name} {contender.built[o.name]:.4g}" for o in _compared(session)[:1]]
    return " at ".join([*values, " ".join(f"{name} {contender.built[name]:,.6g}" for name in costs)])


def _compared(session: Session) -> list[Objective]:
    """The measured objectives that networks are compared by."""
    return [o for o in session.problem.objectives if o.name not in session.dense_costs]


def _key(session: Session, values: Mapping[str, float], bounds: Sequence[Bound]) -> list[float]:
    """The sort key: losses of the measured objectives, then of the costs, then the cost in the first budget."""
    objectives = [*_compared(session), *(o for o in session.problem.objectives if o.name in session.dense_costs)]
    return [*(o.loss(values[o.name]) for o in objectives), values[bounds[0].name]]


def _is_within(values: Mapping[str, float], bounds: Sequence[Bound]) -> bool:
    return all(bound.admits(values[bound.name]) for bound in bounds)


def _shown(bounds: Sequence[Bound]) -> str:
    return " and ".join(map(str, bounds))
