"""A synthetic allocation problem with a known answer: searchers are tested on it without any network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.core.cost import CostModel, Polynomial
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Bound, Objective
from autoprune.core.problem import Problem
from autoprune.core.space import Candidate, SearchSpace

OBJECTIVES = (Objective("accuracy", "max"), Objective("macs", "min"), Objective("params", "min"))


@dataclass(frozen=True)
class Synthetic:
    """A problem with a known answer: `evaluate` needs no network.

    With x_u the share removed from unit u: kl = sum of weight_u x_u^2 + interaction * sum of pair_u x_u x_{u+1}, and
    accuracy = 0.9 exp(-kl) + 0.1, so that 0 <= kl and dense is best.
    """

    problem: Problem
    weights: np.ndarray  # (u,)
    pairs: np.ndarray  # (u - 1,), the interaction's strength in them

    def kl(self, levels: Sequence[int] | np.ndarray) -> float:
        """The damage of (u,) levels, 0 when dense."""
        widths = np.array([counts[0] for counts in self.problem.space.levels])
        removed = 1.0 - self.problem.space.kept(levels) / widths
        return float(self.weights @ removed**2 + self.pairs @ (removed[:-1] * removed[1:]))

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """Every objective, every cost, and kl, accuracy and error."""
        kl = self.kl(candidate.levels)
        accuracy = 0.9 * math.exp(-kl) + 0.1
        costs = {n: float(v[0]) for n, v in self.problem.cost_values(np.array([candidate.levels])).items()}
        return Evaluation(candidate, {"accuracy": accuracy, "error": -accuracy, "kl": kl, **costs})


def synthetic_problem(
    *,
    units: int = 8,
    levels: int = 6,
    seed: int = 0,
    interaction: float = 0.3,
    objectives: int = 2,
    budget: float | None = None,
    coupled: bool = False,
    branches: int = 0,
) -> Synthetic:
    """An allocation problem of `units` units with `levels` levels each, from dense down to one `levels`-th.

    `objectives` counts from accuracy, macs, params; `budget` bounds the macs by a share of the dense network's;
    `coupled` makes them products of neighbours, as for the channels of a chain of convolutions, and not sums;
    `branches` counts further units that are there or not (levels 1 and 0), each with all the cost of one of the others.
    """
    rng = np.random.default_rng(seed)
    width = 4 * levels
    counts = tuple(range(width, 0, -4))
    names, gates = (tuple(f"{kind}{u}" for u in range(n)) for kind, n in (("unit", units), ("branch", branches)))
    space = SearchSpace(names + gates, (counts,) * units + ((1, 0),) * branches)
    widths = dict.fromkeys(names, width) | dict.fromkeys(gates, 1)
    costs = CostModel(widths, _synthetic_costs(names, gates, rng, coupled))
    bounds = () if budget is None else (Bound("macs", "<=", budget * costs.dense()["macs"]),)
    problem = Problem(space, OBJECTIVES[:objectives], costs, bounds, "kl")
    weights = rng.lognormal(-2.0, 1.0, units + branches)
    return Synthetic(problem, weights, interaction * rng.lognormal(-2.0, 1.0, max(units + branches - 1, 0)))


def _synthetic_costs(
    names: Sequence[str], gates: Sequence[str], rng: np.random.Generator, coupled: bool
) -> dict[str, Polynomial]:
    macs = params = Polynomial.constant(0)
    for u, name in enumerate(names):
        before = Polynomial.of(names[u - 1]) if coupled and u else Polynomial.constant(8)
        weights = Polynomial.constant(9) * before * Polynomial.of(name)
        if u < len(gates):
            weights = weights * Polynomial.of(gates[u])
        params += weights
        macs += Polynomial.constant(int(rng.integers(1, 65))) * weights
    return {"macs": macs, "params": params}
