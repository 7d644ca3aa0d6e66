"""Contract test of costs and of the factories that make them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.testing.networks import small_example, small_network
from autoprune.testing.sentences import keeping

if TYPE_CHECKING:
    from torch import nn

    from autoprune.prune.passes.examples import Examples

NAME = "cost"
SHARES = tuple(step / 8 for step in range(1, 8))
SAMPLES = 16
CLOSE = 1e-9  # relative

_ADVICE = "See docs/plugins.md#cost for what a cost must do."


def check_cost(cost: Callable[..., Any], model: nn.Module | None = None, example: Examples | None = None) -> None:
    """Checks that a cost keeps its contract.

    Every value must be finite and not negative. It must be above 0 for the dense network and least for the smallest
    one, and it must depend on the candidate alone: not on earlier calls, and not on other candidates of the same call.
    A factory must make the same cost each time.

    Args:
        cost: a function of kept counts by unit name, which is called with many candidates at once if it is marked with
            `autoprune.vectorised`; or a factory, marked with `autoprune.cost_factory`, that makes such a function or a
            Formula.
        model: a network that has the units the cost is for; by default a small network with two units.
        example: one example call of `model`.

    Raises:
        AssertionError: the cost breaks its contract; the message says how, and what to do.
    """
    with keeping("the cost", _ADVICE):
        model = small_network() if model is None else model
        first, again = (_problem(cost, model, small_example() if example is None else example) for _ in range(2))
        _check_same(first, again)


def _problem(cost: Callable[..., Any], model: nn.Module, example: Examples) -> Problem:
    """The problem of minimising this cost of a network; asserts the contract of its values."""
    from autoprune.prune.find import find_structure
    from autoprune.prune.passes.examples import as_examples
    from autoprune.run.session.costs import check_costs, make_cost, with_costs

    assert callable(cost), f"expected a function or a factory, got a {type(cost).__name__}. {_ADVICE}"
    structure = find_structure(model, example)
    made = make_cost(NAME, cost, structure, model, as_examples(example)[0])
    space = build_space(structure.units, [LevelRule("*", SHARES)])
    problem = Problem(space, (Objective(NAME, "min"),), with_costs(structure.cost, {NAME: made}))
    check_costs(problem, [NAME])
    return problem


def _check_same(first: Problem, again: Problem) -> None:
    sizes = first.space.sizes
    levels = np.random.default_rng(1).integers(0, sizes, (SAMPLES, len(sizes)))
    together = first.cost_values(levels, [NAME])[NAME]
    alone = [first.cost_values(row[None], [NAME])[NAME][0] for row in levels]
    assert np.allclose(together, alone, rtol=CLOSE, atol=0), (
        f"expected a candidate's cost to be the same alone and beside others, got {alone[:3]} and "
        f"{together.tolist()[:3]}. Compute each candidate's value from its own counts"
    )
    made = again.cost_values(levels, [NAME])[NAME]
    assert np.allclose(together, made, rtol=CLOSE, atol=0), (
        f"expected the factory to make the same cost each time, got values {together.tolist()[:3]} and then "
        f"{made.tolist()[:3]}. Measure once, keep what was measured in a file, and read it in the factory"
    )
