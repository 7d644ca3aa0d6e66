"""The driver of pruning in rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from autoprune.prune.modules.copies import copy_model
from autoprune.train.fresh import reinitialised
from autoprune.train.rounds.masks import Masks, kept, narrowed, random_masks, whole_masks
from autoprune.train.rounds.options import Rounds
from autoprune.train.rounds.steps import RoundsTraining

Values = Mapping[str, float]
Judge = Callable[[nn.Module], Values]


@dataclass(frozen=True)
class Round:
    """What a round ended with.

    Attributes:
        number: its number, from 1; 0 is the network without zeros.
        kept: the number of entries that stay, by name of the weight.
        sparsity: the share of zeros among the entries of the pruned weights.
        values: the values of the network after the training of the round.
        controls: the values of the networks that it is compared with, which are trained alike: `reinitialised` has the
            same zeros and new random weights, `random_mask` as many zeros in each weight at random places.
    """

    number: int
    kept: Mapping[str, int]
    sparsity: float
    values: Values
    controls: Mapping[str, Values] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RoundsOutcome:
    """The result of pruning in rounds.

    Attributes:
        network: the network with its zeros, in eval mode.
        masks: the entries that stay, by name of the weight.
        rounds: the rounds, the one without zeros first.
    """

    network: nn.Module
    masks: Masks
    rounds: tuple[Round, ...]

    @property
    def emptied(self) -> list[str]:
        """Names of the weights of which nothing is left."""
        return [name for name, count in self.rounds[-1].kept.items() if not count]


def prune_rounds(
    model: nn.Module,
    options: Rounds,
    training: RoundsTraining,
    judge: Judge,
    after: Callable[[Round], None],
    seed: int = 0,
) -> RoundsOutcome:
    """Prunes a network in rounds.

    Args:
        model: the network, which is not changed: a trained one, or with `rewind` one that is trained first.
        options: the options.
        training: the training of a round.
        judge: measures a network.
        after: called after every round.
        seed: the seed of the controls.

    Raises:
        TrainingDiverged: a training ended in numbers that are not finite.
    """
    network, masks = copy_model(model), whole_masks(model, options.weights, options.skip)
    steps = training.steps
    early = model
    if options.rewind is not None:
        training.trained(network, masks, 0, options.rewind)
        early = copy_model(network)
        measured = training.trained(network, masks, options.rewind, steps)
    else:
        measured = network
    rounds = [_round(0, masks, judge(measured))]
    after(rounds[0])
    for number, sparsity in enumerate(options.sparsities, start=1):
        masks = narrowed(masks, network, sparsity, options.scope)
        if options.rewind is None:
            measured = training.trained(network, masks, (number - 1) * steps, number * steps)
        else:
            network = copy_model(early)
            measured = training.trained(network, masks, options.rewind, steps)
        done = _round(number, masks, judge(measured))
        controls = _controls(early, masks, options, training, judge, seed) if options.controls else {}
        rounds.append(replace(done, controls=controls))
        after(rounds[-1])
    return RoundsOutcome(measured.eval(), masks, tuple(rounds))


def _controls(
    early: nn.Module, masks: Masks, options: Rounds, training: RoundsTraining, judge: Judge, seed: int
) -> dict[str, Values]:
    """The values of the networks that a rewound one is compared with, which are trained for as many steps."""
    begin, end = options.rewind or 0, training.steps
    fresh = reinitialised(early, (), seed)
    others = {"reinitialised": (fresh, masks), "random_mask": (copy_model(early), random_masks(masks, seed))}
    return {name: judge(training.trained(network, own, begin, end)) for name, (network, own) in others.items()}


def _round(number: int, masks: Masks, values: Values) -> Round:
    counts = kept(masks)
    entries = sum(mask.numel() for mask in masks.values())
    return Round(number, counts, 1 - sum(counts.values()) / entries, values)
