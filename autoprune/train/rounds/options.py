"""The options of pruning in rounds, and the shares of zeros after each round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from autoprune.core.options import LARGEST_OPTION, number, raise_problems, whole, word

Schedule = Literal["geometric", "cubic"]
Scope = Literal["global", "layer"]

CUBE = 3


@dataclass(frozen=True)
class Rounds:
    """Puts zeros into the weights of a network in rounds: each prunes a bit, and the network is trained after it.

    In every round the entries of largest absolute value stay, out of those that are left, by the weights of then.

    Attributes:
        sparsity: the share of zeros among the entries of the pruned weights after the last round.
        rounds: the number of rounds.
        schedule: "geometric" removes the same share of what is left in every round, as iterative magnitude pruning and
            RD do; "cubic" removes much at first and little at last.
        scope: "global" compares the entries of all weights with each other, so that every round plans the shares of
            the layers anew; "layer" keeps the same share of each weight.
        rewind: None trains on with the weights as they are. With a number, the network is first trained without zeros,
            and before the training of every round the entries that stay are set back to their values after so many of
            its steps (0: to those that the network came with).
        weights: patterns of the names of the weights to prune.
        skip: patterns of the names of weights to leave dense.
        controls: whether each round's network is compared with the same zeros and new random weights, and with as many
            zeros at random places of each weight, both trained alike; needs `rewind`.

    Raises:
        ConfigError: an option is out of bounds; the error lists all of them.

    Source:
        Frankle and Carbin 2019 (The Lottery Ticket Hypothesis, https://arxiv.org/abs/1803.03635): geometric, rewind=0;
        Frankle et al. 2019 (Stabilizing, https://arxiv.org/abs/1903.01611): rewind to an early step; Zhu and Gupta 2017
        (To prune, or not to prune, https://arxiv.org/abs/1710.01878): cubic. Departures: learning rates follow no
        schedule, and momentum starts at 0 in every round.
    """

    sparsity: float
    rounds: int
    schedule: Schedule = "geometric"
    scope: Scope = "global"
    rewind: int | None = None
    weights: tuple[str, ...] = ("*",)
    skip: tuple[str, ...] = ()
    controls: bool = False

    def __post_init__(self) -> None:
        inside = number("sparsity", self.sparsity, 0, 1, above=True)
        raise_problems(
            [
                *(inside or (["sparsity: expected a number below 1, got 1"] if self.sparsity == 1 else [])),
                *whole("rounds", self.rounds, 1, LARGEST_OPTION),
                *word("schedule", self.schedule, get_args(Schedule)),
                *word("scope", self.scope, get_args(Scope)),
                *([] if self.rewind is None else whole("rewind", self.rewind, 0, LARGEST_OPTION)),
                *(
                    ["controls: expected a number as `rewind`, got None"]
                    if self.controls and self.rewind is None
                    else []
                ),
            ]
        )

    @property
    def sparsities(self) -> list[float]:
        """The share of zeros after each round.

        With s the final one and n rounds, it is 1 - (1 - s)^(k / n) after round k of the geometric schedule, and
        s (1 - (1 - k / n)^3) of the cubic one.
        """
        parts = [k / self.rounds for k in range(1, self.rounds + 1)]
        if self.schedule == "geometric":
            return [1 - (1 - self.sparsity) ** part for part in parts]
        return [self.sparsity * (1 - (1 - part) ** CUBE) for part in parts]
