"""The recovery of any pruned network, without a run: `recover`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from autoprune.api.progress import Relay
from autoprune.core.objective import KNOWN_DIRECTIONS, Objective
from autoprune.core.options import raise_problems
from autoprune.data import Data
from autoprune.errors import ConfigError
from autoprune.measure.fitness import Fitness, classification
from autoprune.measure.intact import Intact
from autoprune.measure.scorer import measured, with_dense_outputs
from autoprune.prune.devices.memory import device_of
from autoprune.run.recovery.conduct import training_examples
from autoprune.run.session.device import placed_batches
from autoprune.run.session.job import OnProgress, Progress
from autoprune.run.session.plugin_checks import expect_data
from autoprune.train.recovery.loop import Recovering
from autoprune.train.recovery.options import Recovery
from autoprune.train.recovery.outcome import Judged, Outcome
from autoprune.train.recovery.own import train_by_own
from autoprune.train.zeros import sparse_names

Kept = Mapping[str, Mapping[int, Any]]  # tensor name -> dimension -> positions


def recover(
    network: nn.Module,
    dense: nn.Module,
    data: Data,
    options: Recovery,
    *,
    fitness: Fitness = classification,
    objective: Objective | None = None,
    kept: Kept | None = None,
    sparse: Collection[str] | None = None,
    progress: bool | OnProgress = True,
) -> Outcome:
    """Trains a pruned network, however it was made, and returns the best one on the selection set.

    Both networks stay unchanged. Nothing is written; `member.recover` of a run keeps checkpoints.

    Args:
        network: the pruned network.
        dense: the dense network, which losses compare with.
        data: the data. The train set is trained on, or the calibration examples if there is none and the loss needs no
            labels; the selection set is measured.
        options: the options of the training.
        fitness: a function (model, batches) -> float or {name: float}.
        objective: what networks are compared by; by default the first value of the fitness whose direction is known.
        kept: the positions of the dense network's tensors that the network keeps, by name and dimension; needed for
            losses that compare features which lost positions.
        sparse: names of weights whose zeros stay zeros; by default those of all weights with a zero.
        progress: True shows progress bars in a terminal or a notebook, False shows nothing; a function is called with
            each `Progress`.

    Returns:
        The outcome, with `network`, `best`, `history` and `remark`.

    Raises:
        ConfigError: an argument is of the wrong kind, there are no examples to train on, or no direction is known.
        DeviceMemoryError: the device has too little memory for one example at a time.

    Example:
        >>> outcome = autoprune.recover(small, dense, data, autoprune.Recovery(epochs=10))
        >>> outcome.network, outcome.best.values["accuracy"]
    """
    expect_data(data)
    modules = {"network": network, "dense": dense}
    wrong = [f"{name}: expected a torch.nn.Module, got {x!r}" for name, x in modules.items() if not _is_module(x)]
    wrong += [] if isinstance(options, Recovery) else [f"options: expected a Recovery, got {options!r}"]
    raise_problems(wrong)
    batches = placed_batches(data.select, device_of(network))
    select, intact, relay = with_dense_outputs(dense, batches, fitness), Intact(), Relay(progress)

    def judge(candidate: nn.Module) -> Judged:
        values = measured(candidate, select, fitness, "fitness", intact)
        chosen = objective or _known(values)
        return Judged((chosen.loss(values[chosen.name]),), values)

    def after(loop: Recovering) -> None:
        relay(Progress("recovery", loop.done, loop.steps, loop.summary))

    zeros = sparse_names(network) if sparse is None else sparse
    examples = training_examples(data, options)
    with relay.showing():
        if callable(options.train):
            return train_by_own(options.train, network, dense, options, examples, zeros, judge)
        return Recovering(network, dense, options, examples, kept or {}, zeros).run(judge, after)


def _is_module(given: object) -> bool:
    return isinstance(given, nn.Module)


def _known(values: Mapping[str, float]) -> Objective:
    """The first value whose direction is known."""
    for name in values:
        if name in KNOWN_DIRECTIONS:
            return Objective(name, KNOWN_DIRECTIONS[name])
    raise ConfigError(
        f"expected an objective, as the direction of {', '.join(values)} is not known, got none. Pass "
        f"objective=autoprune.Objective({next(iter(values), 'name')!r}, 'max')."
    )
