"""Multi-armed bandits, which choose the arm to pull next from past rewards: UCB1 and Thompson sampling.

UCB1: Auer, Cesa-Bianchi, Fischer, Finite-time Analysis of the Multiarmed Bandit Problem, Machine Learning 47, 2002,
https://doi.org/10.1023/A:1013689704352, figure 1. Thompson sampling: Agrawal and Goyal, Analysis of Thompson Sampling
for the Multi-armed Bandit Problem, COLT 2012, https://arxiv.org/abs/1111.1797, algorithm 2. Departures: only an arm's
last `REWARD_WINDOW` rewards count (Garivier and Moulines, On Upper-Confidence Bound Policies for Switching Bandit
Problems, ALT 2011, https://arxiv.org/abs/0805.3415), since an arm's gains change while a front closes; for UCB1 a pull
whose reward is pending counts as a pull, so that several workers do not all pull the arm that leads at the moment;
Thompson's posterior adds the rewards up as they are, and flips no coin for each.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from autoprune.errors import ConfigError

REWARD_WINDOW = 50  # number of an arm's last rewards that count

BanditRule = Literal["ucb", "thompson"]


def check_rule(rule: BanditRule) -> BanditRule:
    """Returns `rule`, or raises ConfigError for an unknown one."""
    if rule not in get_args(BanditRule):
        raise ConfigError(f"expected rule to be one of {list(get_args(BanditRule))}, got {rule!r}")
    return rule


@dataclass
class Arm:
    """The last rewards of an arm, from 0 to 1, and how many of its pulls are still open."""

    rewards: deque[float] = field(default_factory=lambda: deque(maxlen=REWARD_WINDOW))
    open: int = 0

    @property
    def pulls(self) -> int:
        return len(self.rewards) + self.open

    @property
    def mean(self) -> float:
        """The mean reward; 0 without any."""
        return sum(self.rewards) / len(self.rewards) if self.rewards else 0.0

    def copy(self) -> Arm:
        """An arm with the same rewards and no open pulls."""
        return Arm(self.rewards.copy())


def ranked(rule: BanditRule, arms: Sequence[Arm], rng: np.random.Generator) -> list[int]:
    """Positions of the arms, best first; with "ucb", arms never pulled come first, and ties keep their order."""
    scores = _upper_bounds(arms) if rule == "ucb" else _draws(arms, rng)
    return sorted(range(len(arms)), key=lambda index: -scores[index])


def _upper_bounds(arms: Sequence[Arm]) -> list[float]:
    total = sum(arm.pulls for arm in arms)
    return [arm.mean + math.sqrt(2 * math.log(total) / arm.pulls) if arm.pulls else math.inf for arm in arms]


def _draws(arms: Sequence[Arm], rng: np.random.Generator) -> list[float]:
    """One sample of each arm's beta distribution, which starts as uniform."""
    won = np.array([sum(arm.rewards) for arm in arms])
    lost = np.array([len(arm.rewards) for arm in arms]) - won
    return [float(draw) for draw in rng.beta(1 + won, 1 + lost)]
