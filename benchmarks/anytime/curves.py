"""One search on one problem, and how much it has found after so many evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.core.contracts import Searcher
from autoprune.core.evaluation import Evaluation
from autoprune.core.front import Front, hypervolume
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate

CHANCE = 0.1  # accuracy, of ten classes
HALF = 0.5  # of the dense MACs
CHECKPOINTS = (20, 30, 50, 75, 100, 150, 200, 250, 300, 500, 1000, 2000, 3000)

Row = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """A problem with the functions that answer for it.

    `measure` gives what a search sees, its `seconds` being the evaluation's; `truth` the accuracy and the damage a
    network really has.
    """

    name: str
    problem: Problem
    measure: Callable[[Candidate], Evaluation]
    truth: Callable[[Evaluation], tuple[float, float]]


@dataclass(frozen=True)
class Told:
    """An answer, with the seconds that the searcher itself and the evaluations have taken until then."""

    evaluation: Evaluation
    own: float
    measured: float


def searched(setting: Setting, searcher: Searcher, evaluations: int) -> list[Told]:
    """What a searcher asks for, one at a time, in order; it may end before the evaluations are spent."""
    told: list[Told] = []
    measured, own = 0.0, 0.0
    while len(told) < evaluations:
        start = time.process_time()
        asked = searcher.ask(1)
        own += time.process_time() - start
        if not asked:
            break
        evaluation = setting.measure(asked[0])
        measured += evaluation.seconds
        start = time.process_time()
        searcher.tell([evaluation])
        own += time.process_time() - start
        told.append(Told(evaluation, own, measured))
    return told


def rows(setting: Setting, told: Sequence[Told], evaluations: int) -> Iterator[Row]:
    """What was found at every checkpoint; a search that has ended keeps what it had."""
    for checkpoint in (count for count in CHECKPOINTS if count <= evaluations):
        part = told[:checkpoint]
        front = believed(setting.problem, [entry.evaluation for entry in part])
        yield {
            "evaluations": checkpoint,
            "asked": len(part),
            "own_s": round(part[-1].own, 4),
            "seconds": round(part[-1].own + part[-1].measured, 4),
            "hypervolume": round(covered(points(setting, front)), 6),
            "damage_at_half": damage_at_half(setting, front),
        }


def believed(problem: Problem, evaluations: Sequence[Evaluation]) -> Front:
    """The front by what was measured."""
    return Front.of(evaluations, problem.objectives, problem.costs.dense())


def points(setting: Setting, front: Front) -> list[tuple[float, float]]:
    """True accuracy and share of the dense MACs of every member."""
    dense = front.dense["macs"]
    return [(setting.truth(member)[0], member.values["macs"] / dense) for member in front]


def covered(found: Sequence[tuple[float, float]]) -> float:
    """Share of the rectangle between chance and 1, dense and nothing, that (accuracy, MACs share) points dominate."""
    losses = np.array([(1 - accuracy, ratio) for accuracy, ratio in found])
    return hypervolume(losses, (1 - CHANCE, 1.0)) / (1 - CHANCE)


def damage_at_half(setting: Setting, front: Front) -> float | None:
    """True damage of the member that seems best within half the MACs; None where there is none."""
    inside = [member for member in front if member.values["macs"] <= HALF * front.dense["macs"]]
    best = min(inside, key=lambda member: setting.problem.losses([member])[0][0], default=None)
    return None if best is None else round(setting.truth(best)[1], 6)
