"""A synthetic allocation problem with known values, on which searchers are tested without any network."""

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
    """A problem whose values are known in closed form, so that `evaluate` needs no network.

    With x_u the share removed from unit u, kl = sum of weights_u x_u^2 + sum of pairs_u x_u x_{u+1} and accuracy =
    0.9 exp(-kl) + 0.1. So kl is never negative, and the dense network is the best one.
    """

    problem: Problem
    weights: np.ndarray  # (u,)
    pairs: np.ndarray  # (u - 1,), the interactions of neighbouring units

    def kl(self, levels: Sequence[int] | np.ndarray) -> float:
        """The damage of (u,) levels; 0 for the dense network."""
        widths = np.array([counts[0] for counts in self.problem.space.levels])
        removed = 1.0 - self.problem.space.kept(levels) / widths
        return float(self.weights @ removed**2 + self.pairs @ (removed[:-1] * removed[1:]))

    def evaluate(self, candidate: Candidate) -> Evaluation:
        """The evaluation of a candidate: accuracy, error (the negative of accuracy), kl and every cost."""
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
    """Makes an allocation problem with random weights, interactions and costs.

    Args:
        units: the number of units.
        levels: the number of levels of each unit, in equal steps from its width down to one `levels`-th of it.
        seed: the seed of weights, interactions and costs.
        interaction: the strength of the interactions between neighbouring units; 0 for none.
        objectives: how many of the objectives accuracy, macs and params the problem has, in this order.
        budget: an upper bound on macs, as a share of the dense network's; None for no bound.
        coupled: whether the costs are products of the counts of neighbouring units, as for the channels of a chain of
            convolutions, instead of sums over units.
        branches: the number of further units that are either kept or removed (counts 1 and 0); each multiplies the
            whole cost of one of the units.
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
