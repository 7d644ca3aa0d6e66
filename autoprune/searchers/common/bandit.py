"""Which of several arms to pull next, from the rewards of those that were: UCB1 and Thompson sampling.

UCB1: Auer, Cesa-Bianchi, Fischer, Finite-time Analysis of the Multiarmed Bandit Problem, Machine Learning 47, 2002,
https://doi.org/10.1023/A:1013689704352, figure 1. Thompson sampling: Agrawal and Goyal, Analysis of Thompson Sampling
for the Multi-armed Bandit Problem, COLT 2012, https://arxiv.org/abs/1111.1797, algorithm 2. Departures: only an arm's
last `WINDOW` rewards count (Garivier and Moulines, On Upper-Confidence Bound Policies for Switching Bandit Problems,
ALT 2011, https://arxiv.org/abs/0805.3415), since what an arm gains changes while a front closes; for UCB1 a pull whose
reward is still to come counts as a pull, so that several workers do not all pull the arm that leads now; Thompson's
posterior adds the rewards up as they are, and flips no coin for each.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from autoprune.errors import ConfigError

WINDOW = 50  # rewards of an arm that count

Rule = Literal["ucb", "thompson"]


def check_rule(rule: Rule) -> Rule:
    """The same, or a ConfigError that says what it may be."""
    if rule not in get_args(Rule):
        raise ConfigError(f"expected rule to be one of {list(get_args(Rule))}, got {rule!r}")
    return rule


@dataclass
class Arm:
    """Rewards from 0 to 1, the last ones, and how many pulls have none yet."""

    rewards: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    open: int = 0

    @property
    def pulls(self) -> int:
        return len(self.rewards) + self.open

    @property
    def mean(self) -> float:
        """0 where there is no reward."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else 0.0

    def copy(self) -> Arm:
        """An arm with the same rewards, of which nothing is open."""
        return Arm(self.rewards.copy())


def ranked(rule: Rule, arms: Sequence[Arm], rng: np.random.Generator) -> list[int]:
    """Positions of the arms, the one to pull first; with "ucb" those never pulled come first, of equals the first."""
    scores = _upper_bounds(arms) if rule == "ucb" else _draws(arms, rng)
    return sorted(range(len(arms)), key=lambda index: -scores[index])


def _upper_bounds(arms: Sequence[Arm]) -> list[float]:
    total = sum(arm.pulls for arm in arms)
    return [arm.mean + math.sqrt(2 * math.log(total) / arm.pulls) if arm.pulls else math.inf for arm in arms]


def _draws(arms: Sequence[Arm], rng: np.random.Generator) -> list[float]:
    """One from each arm's beta distribution, which begins uniform."""
    won = np.array([sum(arm.rewards) for arm in arms])
    lost = np.array([len(arm.rewards) for arm in arms]) - won
    return [float(draw) for draw in rng.beta(1 + won, 1 + lost)]
