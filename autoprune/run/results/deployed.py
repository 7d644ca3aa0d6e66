"""Builds networks as they are exported."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn

from autoprune.errors import PluginError, TrainingDiverged
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.compensation.compensate import Compensation, compensate
from autoprune.run.session.session import Session

_log = logging.getLogger(__name__)

Losses = list[float]  # the losses of the measured objectives


class Deployed(NamedTuple):
    """A network as it is exported, its number of training steps, and the result of its fit; None as assembled."""

    network: nn.Module
    steps: int
    fit: Compensation | None


def deployed(session: Session, subnet: Subnet) -> Deployed:
    """The network of a subnet as it is exported: the best one of several on the selection set.

    They are the network fitted to the dense network, the network assembled from the bank and, with fine-tuning, both
    after training. Zeros in weights stay zeros.
    """
    built = _built(session, subnet)
    steps = session.scorer.steps(subnet)
    if not steps and len(built) == 1:
        return built[0]
    contenders: list[tuple[Losses, Deployed]] = [
        *(_trained(session, subnet, built) if steps else ()),
        *((_losses(session, one.network), one) for one in built),
    ]
    return min(contenders, key=lambda contender: contender[0])[1]


def _built(session: Session, subnet: Subnet) -> list[Deployed]:
    """The fitted network, if it is fitted, and the assembled one."""
    network = Deployed(session.scorer.build(subnet), 0, None)
    if session.job.compensation == "none" or subnet.is_whole:
        return [network]
    return [fitted(session, subnet), network]


def fitted(session: Session, subnet: Subnet) -> Deployed:
    """The network of a subnet, fitted to the dense network."""
    network = session.bank.build(subnet)
    fit = compensate(network, session.structure, session.reference, subnet.indices, sparse=subnet.sparse)
    return Deployed(network, 0, fit)


def _trained(session: Session, subnet: Subnet, built: Sequence[Deployed]) -> Iterator[tuple[Losses, Deployed]]:
    """The losses and networks after fine-tuning, without those whose training diverged."""
    scorer = session.scorer
    steps = scorer.steps(subnet)
    for one in built:
        try:
            scored = one.fit is None
            trained = scorer.trained(subnet, steps) if scored else scorer.fully_trained(one.network, subnet)
            yield _losses(session, trained), Deployed(trained, steps, one.fit)
        except (TrainingDiverged, PluginError) as error:
            _log.warning("a network of the front is not fine-tuned: %s", error)


def _losses(session: Session, network: nn.Module) -> Losses:
    values = session.selected(network)
    return [o.loss(values[o.name]) for o in session.problem.objectives if o.name in values]
