"""A user's costs: made by their factories, if they have one, and checked against the contract of a cost."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from autoprune.core.cost import (
    FACTORY_ARGUMENTS,
    CostFactory,
    CostModel,
    Formula,
    Polynomial,
    UserCost,
    evaluated,
    is_factory,
    is_vectorised,
)
from autoprune.core.problem import Problem
from autoprune.core.process import ending_forks
from autoprune.core.space import SearchSpace
from autoprune.errors import PluginError, did_you_mean
from autoprune.plugins import misfits
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.passes.examples import Example
from autoprune.prune.structure.structure import Structure
from autoprune.run.session.plugin_checks import kind_of

RANDOM_NETWORKS = 32  # random networks that a cost is checked on, besides the dense and the smallest one
RELATIVE_TOLERANCE = 1e-9  # sums of floats in another order differ by less

_TEST = "autoprune.testing.check_cost tests a cost."


def make_cost(
    name: str, cost: UserCost | CostFactory, structure: Structure, model: nn.Module, example: Example
) -> Formula | UserCost:
    """Returns a user's cost, or the cost that its factory makes.

    Raises:
        PluginError: the function has other arguments, or the factory fails or returns something that is not a cost.
    """
    _check_arguments(name, cost)
    if not is_factory(cost):
        return cost
    inputs, _ = example.inputs()
    try:
        with ending_forks():
            made: object = cost(copy.deepcopy(structure), copy_model(model).eval(), inputs)
    except Exception as error:
        raise PluginError(
            f"the factory of the cost {name!r} raised {type(error).__name__}: {error}. {_TEST}"
        ) from error
    if not isinstance(made, Formula) and (isinstance(made, type) or not callable(made)):
        raise PluginError(
            f"expected the factory of the cost {name!r} to return a function of kept counts or a Formula such as "
            f"autoprune.Polynomial, got {kind_of(made)}. {_TEST}"
        )
    return made


def _check_arguments(name: str, cost: UserCost | CostFactory) -> None:
    given = FACTORY_ARGUMENTS if is_factory(cost) else ("kept",)
    wrong = [sentence for _, sentence in misfits(cost, given, (), ())]
    if wrong:
        mark = (
            "" if is_factory(cost) else " Mark a factory of (structure, model, example) with @autoprune.cost_factory."
        )
        raise PluginError(f"the cost {name!r}: {wrong[0]}.{mark} {_TEST}")


def with_costs(costs: CostModel, own: Mapping[str, Formula | UserCost]) -> CostModel:
    """Adds a job's costs to the others; they raise PluginError for a value that is not a cost."""
    for name, cost in own.items():
        costs = costs.with_cost(name, _checked(name, cost, costs.widths))
    return costs


def _checked(name: str, cost: Formula | UserCost, widths: Mapping[str, int]) -> Formula | UserCost:
    """The cost with checks; a polynomial is checked now and stays as it is, so that plans on it are exact."""
    if not isinstance(cost, Polynomial):
        return (
            CheckedFormula(name, cost) if isinstance(cost, Formula) or is_vectorised(cost) else CheckedCost(name, cost)
        )
    unknown = sorted(cost.units - widths.keys())
    if unknown:
        raise PluginError(
            f"expected the polynomial of the cost {name!r} in kept counts of units of the network, got "
            f"{unknown[0]!r}{did_you_mean(unknown[0], widths)}. Take names of structure.cost.widths. {_TEST}"
        )
    if not all(math.isfinite(coefficient) for coefficient in cost.terms.values()):
        raise PluginError(f"expected the polynomial of the cost {name!r} to have finite coefficients. {_TEST}")
    return cost


@dataclass(frozen=True)
class CheckedCost:
    """A user's function of kept counts. It raises PluginError if it fails or is not a finite number of 0 or more."""

    name: str
    cost: UserCost

    def __call__(self, kept: Mapping[str, int]) -> float:
        counts = "-".join(map(str, kept.values()))
        try:
            value = self.cost(kept)
            number = math.nan if isinstance(value, str | bytes | bool) else float(value)
        except Exception as error:
            raise PluginError(
                f"the cost {self.name!r} of the kept counts {counts} raised {type(error).__name__}: {error}"
            ) from error
        if not _is_cost(number):
            raise PluginError(
                f"expected the cost {self.name!r} to be a finite number of 0 or more, got {value!r} for the kept "
                f"counts {counts}"
            )
        return number


@dataclass(frozen=True)
class CheckedFormula(Formula):
    """A user's Formula or vectorised function. It raises PluginError as CheckedCost does."""

    name: str
    cost: Formula | UserCost

    def evaluate(self, units: Sequence[str], kept: np.ndarray) -> np.ndarray:
        try:
            values = np.asarray(evaluated(self.cost, units, np.array(kept)))
        except Exception as error:
            raise PluginError(
                f"the cost {self.name!r} of {len(kept)} candidates at once raised {type(error).__name__}: {error}"
            ) from error
        if values.shape != (len(kept),) or values.dtype.kind not in "iuf":
            raise PluginError(
                f"expected the cost {self.name!r} to return ({len(kept)},) numbers for {len(kept)} candidates at once, "
                f"got shape {values.shape} of {values.dtype}"
            )
        for value, counts in zip(values.tolist(), np.asarray(kept).tolist(), strict=True):
            if not _is_cost(value):
                raise PluginError(
                    f"expected the cost {self.name!r} to be finite numbers of 0 or more, got {value!r} for the kept "
                    f"counts {'-'.join(map(str, counts))}"
                )
        return values.astype(float)


def _is_cost(value: float) -> bool:
    return math.isfinite(value) and value >= 0


def check_costs(problem: Problem, names: Sequence[str]) -> None:
    """Checks the named costs on the dense network, the smallest network and some random networks.

    Raises:
        PluginError: a cost is not finite, or is negative, 0 for the dense network, not least at the smallest network,
            or different when it is computed again.
    """
    if not names:
        return
    sizes, rng = problem.space.sizes, np.random.default_rng(0)
    ends = np.array([problem.space.dense.levels, problem.space.smallest.levels])
    levels = np.concatenate([ends, rng.integers(0, sizes, (RANDOM_NETWORKS, len(sizes)))])
    found, again = problem.cost_values(levels, names), problem.cost_values(ends, names)
    for name in names:
        _check_cost(name, found[name], again[name], problem.space, levels)


def _check_cost(name: str, values: np.ndarray, again: np.ndarray, space: SearchSpace, levels: np.ndarray) -> None:
    dense, smallest = values[:2].tolist()
    wrong = [row for row, value in enumerate(values.tolist()) if not _is_cost(value)]
    if wrong:
        raise PluginError(
            f"expected the cost {name!r} to be a finite number of 0 or more, got {values[wrong[0]]:g} for the kept "
            f"counts {_counts(space, levels[wrong[0]])}"
        )
    if not np.allclose(values[:2], again, rtol=RELATIVE_TOLERANCE, atol=0):
        raise PluginError(
            f"expected the cost {name!r} to be the same in every call, got {dense:g} and {again[0]:g} for the "
            f"dense network, {smallest:g} and {again[1]:g} for the smallest one. Measure once and keep the value."
        )
    if dense <= 0:
        raise PluginError(f"expected the cost {name!r} of the dense network to be above 0, got {dense:g}")
    least = int(values.argmin())
    if smallest > values[least] * (1 + RELATIVE_TOLERANCE):
        raise PluginError(
            f"expected the cost {name!r} to be least at the smallest network, which bounds the budgets in reach, "
            f"got {smallest:g} there and {values[least]:g} at "
            f"{'the dense network' if least == 0 else _counts(space, levels[least])}. A cost must not rise when fewer "
            "positions are kept."
        )


def _counts(space: SearchSpace, levels: np.ndarray) -> str:
    return "-".join(map(str, space.kept(levels).tolist()))
