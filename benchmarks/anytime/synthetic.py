"""Allocation problems with a known answer: chains of units, damages that interact, noise on what is measured."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from anytime.curves import Setting
from autoprune.core.evaluation import Evaluation
from autoprune.core.objective import Objective
from autoprune.core.space import Candidate
from autoprune.testing import synthetic_problem

UNITS = (10, 30, 100)
LEVELS = 8
INTERACTIONS = {"weak": 0.3, "strong": 2.0}
NOISES = {"exact": 0.0, "noisy": 0.1}
SMALLEST = 3.0  # damage of the smallest network: an accuracy near chance, whatever the number of units
SECONDS = 0.5  # an evaluation is taken to last: a ResNet-20 on one core


def settings(seed: int) -> Iterator[Setting]:
    """The twelve problems of a seed."""
    for units, interaction, noise in itertools.product(UNITS, INTERACTIONS, NOISES):
        yield setting(units, interaction, noise, seed)


def names() -> list[str]:
    return [f"{u} units, {i}, {n}" for u, i, n in itertools.product(UNITS, INTERACTIONS, NOISES)]


def setting(units: int, interaction: str, noise: str, seed: int) -> Setting:
    """Damage against MACs that are products of neighbours.

    The measured damage is off by a factor exp(s z), z standard normal and always the same for the same network, as that
    of a fixed set of images is.
    """
    synthetic = synthetic_problem(
        units=units, levels=LEVELS, seed=seed, interaction=INTERACTIONS[interaction], coupled=True
    )
    problem = replace(synthetic.problem, objectives=(Objective("kl", "min"), Objective("macs", "min")))
    scale = SMALLEST / synthetic.kl(problem.space.smallest.levels)

    def measure(candidate: Candidate) -> Evaluation:
        true = scale * synthetic.kl(candidate.levels)
        draw = np.random.default_rng([seed, *candidate.levels]).standard_normal()
        values = {"kl": true * math.exp(NOISES[noise] * draw), "true_kl": true, **problem.costs_of(candidate)}
        return Evaluation(candidate, values, seconds=SECONDS)

    def truth(evaluation: Evaluation) -> tuple[float, float]:
        kl = evaluation.values["true_kl"]
        return 0.9 * math.exp(-kl) + 0.1, kl

    return Setting(f"{units} units, {interaction}, {noise}", problem, measure, truth)
