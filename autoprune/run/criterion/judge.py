"""Searches for a criterion: formulas are scored by networks that remove positions in the order of the formula."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.errors import ConfigError, PluginError, RunExists, RunFailed
from autoprune.measure.scorer import Scorer
from autoprune.measure.top_classes import number_of_classes
from autoprune.prune.criteria import CRITERIA
from autoprune.prune.criteria.ordering import criterion_inputs, order_units
from autoprune.prune.criteria.symbolic import terms
from autoprune.prune.modules.borrowed import torch_threads
from autoprune.run.criterion.evolve import Judged, Orders, evolve
from autoprune.run.criterion.formula import SymbolicFormula, orders
from autoprune.run.criterion.plugin import CriterionScore, FoundCriterion, source_of
from autoprune.run.loop.guard import guarded
from autoprune.run.records.folder import check_place, write_text
from autoprune.run.session.job import Job, OnProgress, Progress, silent
from autoprune.run.session.session import Session, open_session

KEPT_SHARES = (0.75, 0.5, 0.375)  # shares of every unit's width that the networks keep
RIVALS = ("obs", "l1", "l2", "wanda", "flap", "taylor", "random")


def find_criterion(
    job: Job, out: Path, *, evaluations: int = 200, seed: int = 0, progress: OnProgress = silent
) -> FoundCriterion:
    """Searches formulas of weights, inputs and gradients (run.criterion.evolve) and writes the best one to `out`.

    A formula's loss is the job's guide on the selection set, averaged over uniform networks that keep `KEPT_SHARES` of
    all positions in the order of the formula; weights and batch norms are treated as in the job's search.

    Args:
        job: the settings, as for a search.
        out: the path of the new Python file.
        evaluations: the number of formulas to measure at most.
        seed: the seed of all random choices.
        progress: receives the progress.

    Raises:
        RunExists: the file exists already.
        ConfigError: the name is not that of a Python file, or the space or the objectives leave no unit to score.
        RunFailed: every formula failed.
    """
    if out.suffix != ".py":
        raise ConfigError(f"expected a Python file to write the criterion to, got {out}. Call it my_criterion.py, say.")
    if out.exists():
        raise RunExists(f"expected a new file, {out} is already there. Give another --out.")
    check_place(out)
    out = out.absolute()  # the job's own code may change the current directory
    with guarded(), torch_threads(job.threads):
        judge = Judge(open_session(replace(job, tune="off"), progress))
        best, measured = _best(judge, evaluations, seed, progress)
        rows = [judge.scored("found", orders(best, judge.table) or {})]
        for name in RIVALS:
            progress(Progress("rivals", RIVALS.index(name), len(RIVALS), name))
            rows += judge.rival(name)
        progress(Progress("rivals", len(RIVALS), len(RIVALS)))
    found = FoundCriterion(best, measured, judge.guide.name, judge.kept, tuple(rows))
    write_text(out, source_of(found, out.name, seed))
    return found


def _best(judge: Judge, evaluations: int, seed: int, progress: OnProgress) -> tuple[SymbolicFormula, int]:
    """The best formula, and the number of measured formulas."""

    def report(done: int, best: Judged) -> None:
        progress(Progress("formulas", done, evaluations, f"{judge.guide.name} {best.fitness:.4g}: {best.formula}"))

    judged = evolve(judge.table, judge.loss, evaluations=evaluations, seed=seed, report=report)
    if not judged or not np.isfinite(judged[0].fitness):
        raise RunFailed(f"none of {len(judged)} formulas gave networks that can be scored")
    return judged[0].formula, len(judged)


@dataclass(frozen=True)
class Judge:
    """Scores criteria in one session: a loss on the selection set, and values on the report set."""

    session: Session

    @cached_property
    def guide(self) -> Objective:
        """The measured objective that the search minimises or maximises."""
        costs = self.session.dense_costs
        guides = [o for o in self.session.problem.objectives if o.name not in costs]
        if not guides:
            raise ConfigError("expected an objective that is measured, got only costs. Add accuracy, for example.")
        return guides[0]

    @cached_property
    def table(self) -> dict[str, list[dict[str, np.ndarray]]]:
        """The terminals of formulas, by unit, for each consumer that has statistics."""
        session = self.session
        units = [session.structure.unit(name) for name in session.sliced]
        wanted = ("moments", "gradients") if self._classifies else ("moments",)
        given = criterion_inputs(
            session.model, session.structure, units, session.bank.moments, session.scorer.calibrate, wanted
        )
        known = {u.name: terms(weights, statistics) for u, weights, statistics in given if statistics.consumers}
        if not known:
            raise ConfigError(
                "expected units whose consumers have statistics, found none, so that formulas have no inputs"
            )
        return {
            name: [{key: x.numpy() for key, x in vars(own).items() if x is not None} for own in consumers]
            for name, consumers in known.items()
        }

    @cached_property
    def networks(self) -> tuple[Candidate, ...]:
        """The uniform networks, which may be fewer than `KEPT_SHARES` if there are few levels; branches stay."""
        session, space = self.session, self.session.space
        narrowed = {name for name in session.sliced if not session.structure.unit(name).is_branch}
        rows = [
            tuple(
                int(np.abs(np.array(counts) / counts[0] - share).argmin()) if unit in narrowed else 0
                for unit, counts in zip(space.units, space.levels, strict=True)
            )
            for share in KEPT_SHARES
        ]
        return tuple(Candidate(row) for row in dict.fromkeys(rows))

    @property
    def kept(self) -> tuple[float, ...]:
        """The share of all positions that each of the networks keeps."""
        space = self.session.space
        kept = space.kept(np.array([network.levels for network in self.networks]))
        return tuple((kept.sum(axis=1) / space.kept(space.dense.levels).sum()).tolist())

    def loss(self, found: Orders) -> float:
        """The mean loss of the networks on the selection set; infinite if one fails."""
        answers = [self._scorer(found).score(network) for network in self.networks]
        if not all(answer.ok for answer in answers):
            return float("inf")
        return float(np.mean([self.guide.loss(answer.values[self.guide.name]) for answer in answers]))

    def scored(self, name: str, found: Orders) -> CriterionScore:
        scorer = self._scorer(found)
        values = [scorer.measure(scorer.network(network), self.session.reported) for network in self.networks]
        means = {key: float(np.mean([own[key] for own in values])) for key in values[0]}
        return CriterionScore(name, self.guide.loss(self.loss(found)), means)

    def rival(self, name: str) -> list[CriterionScore]:
        """The score of a built-in criterion; empty if the network lacks what it needs, such as batch norms."""
        try:
            return [self.scored(name, self._ordered(name))]
        except PluginError:
            return []

    def _ordered(self, name: str) -> Orders:
        session = self.session
        units = [session.structure.unit(unit) for unit in session.sliced]
        given = (session.bank.moments, session.scorer.calibrate)
        return order_units(session.model, session.structure, units, CRITERIA[name], *given)[0]

    @cached_property
    def _fallback(self) -> Orders:
        """The order of units that formulas cannot read."""
        return self._ordered("l2")

    def _scorer(self, found: Orders) -> Scorer:
        bank = self.session.bank.with_orders({**self._fallback, **found})
        return replace(self.session.scorer, bank=bank, training=None)  # training would hide differences between orders

    @property
    def _classifies(self) -> bool:
        """Whether the network returns logits of classes, whose loss gives gradients."""
        return number_of_classes(self.session.scorer.select[0].dense) > 0
