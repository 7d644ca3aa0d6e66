"""Recovery by a training function of the user's own, such as one that calls Lightning or a Trainer of transformers."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from autoprune.errors import PluginError
from autoprune.plugins import plugin_name
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.copying import named_tensors
from autoprune.train.recovery.loop import Batches
from autoprune.train.recovery.options import OwnTraining, Recovery
from autoprune.train.recovery.outcome import Judge, Outcome, Point
from autoprune.train.zeros import KeptZeros


def train_by_own(
    train: OwnTraining,
    network: nn.Module,
    teacher: nn.Module | None,
    options: Recovery,
    batches: Batches,
    sparse: Collection[str],
    judge: Judge,
) -> Outcome:
    """Calls a user's training function on copies, and returns the better network of before and after.

    Zeros of the sparse weights are zeros again afterwards.

    Raises:
        PluginError: the function returned anything but None or a network with the same tensors.
    """
    start = Point(0, None, *judge(network))
    copy, dense = copy_model(network).train(), None if teacher is None else copy_model(teacher)
    epoch = [batches.batch(step) for step in range(batches.per_epoch)]
    returned = train(copy, dense, epoch, options)
    trained = _checked(train, copy if returned is None else returned, network).eval()
    KeptZeros.of(network, sparse).restore(trained)
    end = Point(options.steps_of(batches.per_epoch), None, *judge(trained))
    better = end.losses < start.losses
    return Outcome(trained if better else copy_model(network), end if better else start, (start, end), end.step)


def _checked(train: OwnTraining, found: object, network: nn.Module) -> nn.Module:
    """The trained network, if it has the tensors of the one before training."""
    shapes = {name: tensor.shape for name, tensor in named_tensors(network).items()}
    if isinstance(found, nn.Module) and shapes == {name: x.shape for name, x in named_tensors(found).items()}:
        return found
    got = "a network with other tensors" if isinstance(found, nn.Module) else f"a {type(found).__name__}"
    raise PluginError(
        f"expected recover.train, {plugin_name(train)}, to train the network that it is given, or to return a network "
        f"with the same tensors, got {got}"
    )
