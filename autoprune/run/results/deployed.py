"""Builds networks as they are exported."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from torch import nn

from autoprune.core.objective import Objective
from autoprune.errors import PluginError, TrainingDiverged, UnsupportedModel
from autoprune.measure.scorer import Scorer
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.compensation.compensate import Compensation, compensate
from autoprune.prune.compensation.reference import Reference
from autoprune.prune.structure.structure import Structure
from autoprune.train.recovery.mimicking import Mimicking

_log = logging.getLogger(__name__)

Losses = list[float]  # the losses of the measured objectives


class Parts(Protocol):
    """What networks are built from: a session, or its picklable share that workers get (run.results.building)."""

    @property
    def scorer(self) -> Scorer: ...

    @property
    def structure(self) -> Structure: ...

    @property
    def reference(self) -> Reference | None:
        """The dense network and the examples of fits; None if networks are not fitted."""

    @property
    def mimicking(self) -> Mimicking | None:
        """The training without labels of fitted networks; None if there is none."""

    @property
    def objectives(self) -> Sequence[Objective]:
        """The objectives by which the best of several networks is chosen; costs among them are ignored."""


class Deployed(NamedTuple):
    """A network as it is exported, its number of training steps, and the result of its fit; None as assembled."""

    network: nn.Module
    steps: int
    fit: Compensation | None


def deployed(parts: Parts, subnet: Subnet, warn: Callable[[str], None] = _log.warning) -> Deployed:
    """The network of a subnet as it is exported: the best one of several on the selection set.

    They are the network fitted to the dense network, the one that mimicked it afterwards, if that is wanted, and the
    network assembled from the bank; with fine-tuning, all of them after training, too. Zeros in weights stay zeros.

    Args:
        parts: what networks are built from.
        subnet: the part of the model that is kept.
        warn: receives a sentence for each network whose training diverged.
    """
    built = _built(parts, subnet, warn)
    steps = parts.scorer.steps(subnet)
    if not steps and len(built) == 1:
        return built[0]
    contenders: list[tuple[Losses, Deployed]] = [
        *((_losses(parts, one.network), one) for one in built),  # of equal networks the first one is taken
        *(_trained(parts, subnet, built, warn) if steps else ()),
    ]
    return min(contenders, key=lambda contender: contender[0])[1]


def _built(parts: Parts, subnet: Subnet, warn: Callable[[str], None]) -> list[Deployed]:
    """The fitted network and that after mimicking, if there are any, and the assembled one."""
    network = Deployed(parts.scorer.build(subnet), 0, None)
    if subnet.is_whole or parts.reference is None:
        return [network]
    own = fitted(parts, parts.reference, subnet)
    return [own, *_mimicked(parts, subnet, own, warn), network]


def _mimicked(parts: Parts, subnet: Subnet, own: Deployed, warn: Callable[[str], None]) -> list[Deployed]:
    """The fitted network after mimicking, if that is wanted and possible."""
    mimicking = parts.mimicking
    if mimicking is None or own.fit is None:
        return []
    try:
        network = mimicking.mimicked(own.network, parts.scorer.bank.model, subnet.indices, subnet.sparse)
    except (TrainingDiverged, PluginError, UnsupportedModel) as error:
        warn(f"a network of the front is fitted, but does not mimic the dense network: {error}")
        return []
    return [Deployed(network, 0, replace(own.fit, mimic_steps=mimicking.steps))]


def fitted(parts: Parts, reference: Reference, subnet: Subnet) -> Deployed:
    """The network of a subnet, fitted to the dense network."""
    network = parts.scorer.bank.build(subnet)
    fit = compensate(network, parts.structure, reference, subnet.indices, sparse=subnet.sparse)
    return Deployed(network, 0, fit)


def _trained(
    parts: Parts, subnet: Subnet, built: Sequence[Deployed], warn: Callable[[str], None]
) -> Iterator[tuple[Losses, Deployed]]:
    """The losses and networks after fine-tuning, without those whose training diverged."""
    scorer = parts.scorer
    steps = scorer.steps(subnet)
    for one in built:
        try:
            scored = one.fit is None
            trained = scorer.trained(subnet, steps) if scored else scorer.fully_trained(one.network, subnet)
            yield _losses(parts, trained), Deployed(trained, steps, one.fit)
        except (TrainingDiverged, PluginError) as error:
            warn(f"a network of the front is not fine-tuned: {error}")


def _losses(parts: Parts, network: nn.Module) -> Losses:
    values = parts.scorer.measure(network, parts.scorer.select)
    return [o.loss(values[o.name]) for o in parts.objectives if o.name in values]
