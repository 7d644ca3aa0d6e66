"""Plans for residual networks, whose stages' widths are shared by their blocks."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from autoprune.core.levels import LevelRule, build_space
from autoprune.core.objective import Objective
from autoprune.core.problem import Problem
from autoprune.plan.allocation import Allocator
from autoprune.prune.find import find_structure
from autoprune.zoo import resnet20
from autoprune.zoo.resnet import ResNet


def problem_of(network) -> Problem:
    """Every unit of the network searched with sixteen levels."""
    structure = find_structure(network, torch.zeros(1, 3, 32, 32))
    space = build_space(structure.units, [LevelRule("*", tuple((np.arange(1, 17) / 16).tolist()))])
    return Problem(space, (Objective("kl", "min"), Objective("macs", "min")), structure.cost)


@pytest.mark.parametrize(
    ("network", "units"),
    [(resnet20, 1 + 9), (partial(ResNet, (3, 3, 3), projection=True), 3 + 9)],
    ids=["padded shortcuts", "projected shortcuts"],
)
def test_plans_are_optimal_and_within_one_percent_below_every_budget(network, units):
    problem = problem_of(network().eval())
    assert len(problem.space.units) == units
    rng = np.random.default_rng(0)
    removed = 1 - np.arange(16, 0, -1) / 16
    damages = rng.lognormal(-3, 1, (units, 1)) * removed ** rng.uniform(1.2, 3, (units, 1))
    allocator = Allocator(problem, damages, "macs")
    for share in (0.9, 0.7, 0.5, 0.35, 0.2, 0.1):
        budget = share * problem.costs.dense()["macs"]
        found = allocator.allocate(budget)
        assert 0.99 * budget < found.cost <= budget
        assert problem.cost_values(np.array([found.levels]))["macs"][0] == found.cost
        assert found.exact
