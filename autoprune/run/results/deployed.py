"""The network of a candidate as it is exported."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import nn

from autoprune.core.space import Candidate
from autoprune.errors import PluginError, TrainingDiverged
from autoprune.prune.bank.weights import stitched
from autoprune.prune.compensation.compensate import Compensation, compensate
from autoprune.prune.modules.copying import named_tensors
from autoprune.run.session.session import Session

_log = logging.getLogger(__name__)

Losses = list[float]  # that the search minimises, of what is measured


class Deployed(NamedTuple):
    """A network as it is exported, for how many steps it was trained, and what fitting it did; None as stitched."""

    network: nn.Module
    steps: int
    fit: Compensation | None


def deployed(session: Session, candidate: Candidate) -> Deployed:
    """The network of a candidate as it is exported: what does best on the selection set of those there are.

    These are the one that is fitted to the dense network and the one that is stitched from the bank and, with
    fine-tuning, both after it. Zeros in weights stay zeros.
    """
    built = _built(session, candidate)
    counts = session.space.counts(candidate)
    steps = session.scorer.steps(counts)
    if not steps and len(built) == 1:
        return built[0]
    contenders: list[tuple[Losses, Deployed]] = [
        *(_trained(session, counts, built) if steps else ()),
        *((_losses(session, one.network), one) for one in built),
    ]
    return min(contenders, key=lambda contender: contender[0])[1]


def _built(session: Session, candidate: Candidate) -> list[Deployed]:
    """The network fitted, where it is, and stitched."""
    network = Deployed(session.scorer.network(candidate), 0, None)
    if session.job.compensation == "none" or not any(candidate.levels):
        return [network]
    return [fitted(session, session.space.counts(candidate)), network]


def fitted(session: Session, counts: Mapping[str, int]) -> Deployed:
    """The network for kept counts by unit, fitted to the dense one."""
    network = stitched(session.bank, session.weight_bank, counts)
    indices = session.bank.indices(session.bank.positions(counts))
    dense = named_tensors(session.model)
    sparse = [] if session.weight_bank is None else session.weight_bank.touched(counts)
    return Deployed(network, 0, compensate(network, session.structure, session.targets, indices, dense, sparse=sparse))


def _trained(
    session: Session, counts: Mapping[str, int], built: Sequence[Deployed]
) -> Iterator[tuple[Losses, Deployed]]:
    """The same after fine-tuning, losses first; those left out that did not come out of it in finite numbers."""
    scorer = session.scorer
    steps = scorer.steps(counts)
    for one in built:
        try:
            scored = one.fit is None
            trained = scorer.trained(counts, steps) if scored else scorer.fully_trained(one.network, counts)
            yield _losses(session, trained), Deployed(trained, steps, one.fit)
        except (TrainingDiverged, PluginError) as error:
            _log.warning("a network of the front is not fine-tuned: %s", error)


def _losses(session: Session, network: nn.Module) -> Losses:
    values = session.selected(network)
    return [o.loss(values[o.name]) for o in session.problem.objectives if o.name in values]
