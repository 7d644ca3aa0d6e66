"""Chooses the networks of an audit within its budget band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autoprune.core.evaluation import Evaluation
from autoprune.core.problem import Problem, is_usable
from autoprune.core.space import Candidate, Levels
from autoprune.errors import ConfigError, InfeasibleBudget
from autoprune.plan.repair import fit_to_budget
from autoprune.run.audits.band import Band
from autoprune.run.audits.request import LEAST, AuditRequest

TRIES = 50  # random networks drawn for each one that is wanted
PER_ORDER = 5  # one network in so many is compared with other orders of positions at its widths

Origin = Literal["searched", "random", "order"]


@dataclass(frozen=True)
class Chosen:
    """A network of an audit.

    Attributes:
        levels: its levels.
        origin: whether the search measured it, it is a random one, or it repeats another one in another order.
        order: the criterion that orders its positions; empty for that of the search.
    """

    levels: Levels
    origin: Origin
    order: str = ""


def choose(
    problem: Problem, evaluations: Sequence[Evaluation], band: Band, request: AuditRequest, seed: int
) -> tuple[Chosen, ...]:
    """The networks of an audit: searched ones, random ones, and some of both in other orders of positions.

    Half of the networks are the best that the search measured within the band, the others are drawn at random; if there
    are too few of one kind, there are more of the other.

    Raises:
        ConfigError: fewer than three networks lie in the band.
    """
    searched = _searched(problem, evaluations, band)
    drawn = _drawn(problem, band, request.networks, {*searched}, np.random.default_rng(seed))
    half = max(request.networks - request.networks // 2, request.networks - len(drawn))
    taken = searched[:half]
    chosen = [Chosen(levels, "searched") for levels in taken]
    chosen += [Chosen(levels, "random") for levels in drawn[: request.networks - len(taken)]]
    if len(chosen) < LEAST:
        dense = problem.costs.dense()
        count = "one network" if len(chosen) == 1 else f"{len(chosen) or 'no'} networks"
        raise ConfigError(
            f"expected at least {LEAST} networks of {band.shown(dense)}, as an audit compares the order of networks, "
            f"found {count}. Widen the band."
        )
    return (*chosen, *_in_other_orders(chosen, request.orders))


def _searched(problem: Problem, evaluations: Sequence[Evaluation], band: Band) -> list[Levels]:
    """The levels of the networks that the search measured within the band, the best first."""
    usable = [e for e in evaluations if e.candidate.fidelity == 1 and is_usable(problem, e)]
    costs = problem.costs.names
    measured = [o for o in problem.objectives if o.name not in costs]
    ranked = sorted(usable, key=lambda e: [o.loss(e.values[o.name]) for o in measured])
    return [levels for levels in dict.fromkeys(e.candidate.levels for e in ranked) if _within(problem, band, levels)]


def _drawn(problem: Problem, band: Band, count: int, known: set[Levels], rng: np.random.Generator) -> list[Levels]:
    """The levels of `count` random networks within the band, or of as many as are found."""
    found: dict[Levels, None] = {}
    for _ in range(TRIES * count):
        target = rng.uniform(band.low, band.high)
        try:
            fitted = fit_to_budget(problem, rng.integers(0, problem.space.sizes), rng, band.cost, target)
        except InfeasibleBudget:  # another target may be met
            continue
        levels: Levels = tuple(fitted.tolist())
        if levels not in known and any(levels) and _within(problem, band, levels):
            found[levels] = None
        if len(found) == count:
            break
    return list(found)


def _within(problem: Problem, band: Band, levels: Levels) -> bool:
    inside = problem.feasible(np.array([levels]))[0]
    return bool(inside and band.admits(problem.costs_of(Candidate(levels))[band.cost]))


def _in_other_orders(chosen: Sequence[Chosen], orders: Sequence[str]) -> list[Chosen]:
    """Every fifth network in each of the other orders."""
    return [Chosen(one.levels, "order", order) for one in chosen[::PER_ORDER] for order in orders]
