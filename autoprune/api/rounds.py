"""Pruning in rounds in Python: `prune_in_rounds`."""

from __future__ import annotations

import functools

from torch import nn

from autoprune.api.progress import Relay
from autoprune.data import Data
from autoprune.errors import ConfigError
from autoprune.measure.fitness import Fitness, classification
from autoprune.measure.intact import Intact
from autoprune.measure.scorer import measured, with_dense_outputs
from autoprune.run.session.device import placed_batches
from autoprune.run.session.finetuning import read_training
from autoprune.run.session.job import OnProgress, Progress
from autoprune.run.session.plugin_checks import expect_data
from autoprune.train.finetune import COMPARING, FineTune
from autoprune.train.rounds.options import Rounds
from autoprune.train.rounds.rounds import Round, RoundsOutcome, prune_rounds
from autoprune.train.rounds.steps import RoundsTraining

CLASSES = functools.partial(classification, report=("accuracy", "loss"))


def prune_in_rounds(
    model: nn.Module,
    data: Data,
    rounds: Rounds,
    finetune: FineTune | None = None,
    *,
    fitness: Fitness = CLASSES,
    seed: int = 0,
    progress: bool | OnProgress = True,
) -> RoundsOutcome:
    """Puts zeros into the weights of a network in rounds, with training in between.

    No search is needed. Every round removes the entries of smallest absolute value by the weights of then, and trains
    the network; with `rewind`, the entries that stay are first set back to an early value (lottery tickets).

    Args:
        model: the network, which is not changed: a trained one, or with `rewind` one with its initial weights.
        data: the data, with a train set if there is training.
        rounds: the share of zeros, the number of rounds, and how they are chosen.
        finetune: the training of each round; None for none.
        fitness: a function (model, batches) -> float or {name: float}, which measures each round's network on the
            selection set.
        seed: the seed of the networks of `controls`.
        progress: True shows progress bars in a terminal or a notebook, False shows nothing; a function is called with
            each `Progress`.

    Returns:
        The network, its masks, and the values of every round.

    Raises:
        ConfigError: `rewind` without training, with a later step than the last one or with a loss that compares with
            the network that was given; the data have no train set; or no weight matches.
        TrainingDiverged: a training ended in numbers that are not finite.

    Example:
        >>> found = autoprune.prune_in_rounds(model, data, autoprune.Rounds(0.9, 10), autoprune.FineTune(200))
        >>> found.network, found.rounds[-1].values["accuracy"]
    """
    expect_data(data)
    _check(rounds, finetune, data)
    relay = Relay(progress)

    place = functools.partial(placed_batches, device=next(model.parameters()).device)

    def after(done: Round) -> None:
        values = ", ".join(f"{name} {value:.4g}" for name, value in done.values.items())
        relay(Progress("rounds", done.number, rounds.rounds, f"{done.sparsity:.1%} zeros, {values}"))

    examples = None if finetune is None else read_training(finetune, data, model, place)
    select = with_dense_outputs(model, place(data.select), fitness)
    judge = functools.partial(measured, batches=select, fitness=fitness, objective="fitness", intact=Intact())
    with relay.showing():
        return prune_rounds(model, rounds, RoundsTraining(finetune, examples), judge, after, seed)


def _check(rounds: Rounds, finetune: FineTune | None, data: Data) -> None:
    """Raises ConfigError, with all reasons, if the options do not fit each other or the data."""
    problems = []
    if finetune is not None and data.train is None:
        problems.append(
            "finetune: expected data with a train set, got none. Give it one, Data.from_arrays(..., train=(x, y))."
        )
    if rounds.rewind is not None and finetune is None:
        problems.append("rewind: expected a training with it, got none. Give finetune=FineTune(steps=...).")
    if rounds.rewind is not None and finetune is not None:
        if rounds.rewind > finetune.steps:
            problems.append(f"rewind: expected at most the {finetune.steps} steps of finetune, got {rounds.rewind}.")
        if finetune.loss in COMPARING:
            problems.append(
                f"finetune.loss: expected a loss that does not compare with the given network, which is not trained "
                f"before the first round, got {finetune.loss}. Take cross_entropy."
            )
    if problems:
        raise ConfigError(problems)
