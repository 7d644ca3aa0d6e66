"""Measures the networks of an audit: the values that foretell, and the values after training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn

from autoprune.core.objective import KNOWN_DIRECTIONS, Direction
from autoprune.errors import ConfigError
from autoprune.measure.batch import Batch
from autoprune.measure.batch_norms.recalibrate import recalibrate
from autoprune.measure.fitness import Fitness, classification
from autoprune.measure.intact import Intact
from autoprune.measure.language import language_model
from autoprune.measure.layer_error import check_layers, layer_error
from autoprune.measure.scorer import measured, with_dense_outputs
from autoprune.prune.bank.channels import Bank
from autoprune.prune.bank.subnet import Subnet
from autoprune.prune.compensation.compensate import compensate
from autoprune.prune.modules.batch_norms import tracked_norms
from autoprune.prune.modules.copies import copy_model
from autoprune.run.session.device import placed_batches
from autoprune.run.session.problem import first_measured
from autoprune.run.session.session import Session

ADAPTIVE, ASSEMBLED, FITTED = "_adaptive", "_assembled", "_fitted"  # endings of names, see `Measures.before`
# the built-in fitnesses, with what they measure before and after training
NAMES: tuple[tuple[Fitness, tuple[str, ...], tuple[str, ...]], ...] = (
    (classification, ("kl", "accuracy", "loss", "mse"), ("accuracy", "loss")),
    (language_model, ("kl", "loss"), ("loss",)),
)


@dataclass(frozen=True)
class Ready:
    """A network that is ready for training, and its values before."""

    network: nn.Module
    values: Mapping[str, float]


class Measures:
    """Measures networks of a session before and after training.

    Args:
        session: the session of the run.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._intact = Intact()
        self._before, self._after = _fitnesses(session.job.fitness)

    def before(self, bank: Bank, subnet: Subnet) -> Ready:
        """Builds a network as it is deployed without training, and measures it on the selection set.

        The names of values without an ending are those of the network as the search scores it. `_adaptive` has batch
        norms that are re-estimated without an anchor, `_assembled` those of the dense network, and `_fitted` is the
        network fitted to the dense network, which is trained. `layer` is the error layer by layer.
        """
        session = self._session
        network = bank.build(subnet)
        values = self._with_ending(ASSEMBLED, self._brief(network)) if tracked_norms(network) else {}
        if tracked_norms(network):
            adapted = copy_model(network)
            recalibrate(adapted, session.scorer.calibrate)
            values |= self._with_ending(ADAPTIVE, self._brief(adapted))
        session.scorer.deployed_norms.settle(network, subnet.indices)
        scored = self._measured(self._before, network, self._select)
        if self._has_layers:
            scored |= {"layer": layer_error(bank, subnet)}
        if session.reference is not None:
            network = bank.build(subnet)
            compensate(network, session.structure, session.reference, subnet.indices, sparse=subnet.sparse)
            values |= self._with_ending(FITTED, self._brief(network))
        return Ready(network, {**scored, **values})

    def after(self, network: nn.Module) -> dict[str, float]:
        """The values of a trained network on the report set."""
        return self._measured(self._after, network, self._report)

    def direction(self, name: str) -> Direction | None:
        """Whether a lower or higher value is better; None if unknown."""
        for ending in (ADAPTIVE, ASSEMBLED, FITTED):
            name = name.removesuffix(ending)
        known = {**KNOWN_DIRECTIONS, **{o.name: o.direction for o in self._session.job.objectives}}
        return known.get(name)

    def _brief(self, network: nn.Module) -> dict[str, float]:
        """The guide and the values that are compared after training, before it."""
        values = self._measured(self._before, network, self._select)
        wanted = {self._session.job.guide, *(o.name for o in self._session.job.objectives)}
        return {name: value for name, value in values.items() if name in wanted}

    @staticmethod
    def _with_ending(ending: str, values: Mapping[str, float]) -> dict[str, float]:
        return {name + ending: value for name, value in values.items()}

    def _measured(self, fitness: Fitness, network: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
        name = first_measured(self._session.job, self._session.dense_costs)
        return measured(network, batches, fitness, name, self._intact)

    @functools.cached_property
    def _select(self) -> Sequence[Batch]:
        return self._prepared(self._session.data.select, self._before)

    @functools.cached_property
    def _report(self) -> Sequence[Batch]:
        return self._prepared(self._session.data.report, self._after)

    def _prepared(self, batches: Sequence[Batch], fitness: Fitness) -> Sequence[Batch]:
        return with_dense_outputs(self._session.model, placed_batches(batches, self._session.device), fitness)

    @functools.cached_property
    def _has_layers(self) -> bool:
        """Whether the error layer by layer is defined for the searched units."""
        try:
            check_layers(self._session.bank, self._session.space.units)
        except ConfigError:
            return False
        return True


def _fitnesses(fitness: Fitness) -> tuple[Fitness, Fitness]:
    """The fitness before and after training: a built-in one measures more than it reports in a search."""
    called = fitness.func if isinstance(fitness, functools.partial) else fitness
    for known, before, after in NAMES:
        if known is called:
            reporting = cast(Callable[..., Any], called)
            return functools.partial(reporting, report=before), functools.partial(reporting, report=after)
    return fitness, fitness
