"""Instances with answers computed elsewhere, used all over this room's tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace


@dataclass(frozen=True)
class Instance:
    """Additive damages over a problem: what any plan really costs and really does."""

    problem: Problem
    errors: np.ndarray  # (u, l)

    def evaluate(self, candidate: Candidate) -> Evaluation:
        error = float(sum(self.errors[u, level] for u, level in enumerate(candidate.levels)))
        costs = {name: float(v[0]) for name, v in self.problem.cost_values(np.array([candidate.levels])).items()}
        return Evaluation(candidate, {"error": error, **costs})


K1_COSTS = np.array([[10, 7, 5, 2], [8, 6, 3, 1], [12, 9, 4, 2], [6, 4, 2, 1]])
K1_ERRORS = np.array([[0, 1, 2.5, 9], [0, 0.4, 3, 8], [0, 0.3, 2, 7.5], [0, 1.5, 2, 4]])
K1_FRONT = [
    *(
        (6, 28.5),
        (7, 26.5),
        (8, 23),
        (9, 21),
        (10, 18),
        (11, 16),
        (12, 14.5),
        (13, 11.5),
        (14, 9.5),
        (16, 8),
        (17, 6.9),
    ),
    *((19, 5.4), (21, 4.9), (22, 4.4), (23, 3.4), (25, 3), (26, 2.4), (28, 1.7), (30, 1.3), (31, 0.7), (33, 0.3)),
    (36, 0),
]


def k1_instance() -> Instance:
    """Four units with four levels, 256 networks, a front of 22; the cost is a user's function."""
    names = ("a", "b", "c", "d")
    space = SearchSpace(names, ((4, 3, 2, 1),) * 4)

    def cost(kept: Mapping[str, int]) -> float:
        return float(sum(K1_COSTS[u, 4 - kept[name]] for u, name in enumerate(names)))

    costs = CostModel(dict.fromkeys(names, 4), {"cost": cost})
    objectives = (Objective("error", "min"), Objective("cost", "min"))
    return Instance(Problem(space, objectives, costs), K1_ERRORS)


def chain_instance(*, user_function: bool) -> Instance:
    """Four 3x3 convolutions in a row and a classifier, costs coupled by neighbouring widths; 69,200 MACs dense."""
    names = ("w1", "w2", "w3", "w4")
    w1, w2, w3, w4 = (Polynomial.of(name) for name in names)
    of = Polynomial.constant
    macs = of(9) * (of(64 * 3) * w1 + of(64) * w1 * w2 + of(16) * w2 * w3 + of(16) * w3 * w4) + of(10) * w4

    def function(kept: Mapping[str, int]) -> float:
        return float(macs.evaluate(names, np.array([[kept[name] for name in names]]))[0])

    costs = CostModel(dict.fromkeys(names, 8), {"macs": function if user_function else macs})
    space = SearchSpace(names, ((8, 6, 4, 2),) * 4)
    errors = np.array([[1], [4], [0.5], [2]]) * (1 - np.array([8, 6, 4, 2]) / 8) ** 2
    return Instance(Problem(space, (Objective("error", "min"), Objective("macs", "min")), costs), errors)
