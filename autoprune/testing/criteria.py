"""Contract tests of criteria, which order positions, and of mask rules, which order the entries of a weight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.testing.networks import small_batches, small_network
from autoprune.testing.sentences import keeping

if TYPE_CHECKING:
    import torch
    from torch import nn

    from autoprune.measure.batch import Batch
    from autoprune.prune.moments.moments import Moments
    from autoprune.prune.structure.structure import Structure


def check_criterion(
    criterion: Callable[..., Any], model: nn.Module | None = None, batches: Sequence[Batch] | None = None
) -> None:
    """Checks that a criterion keeps its contract.

    A criterion must return one finite score for each position of a unit, the same each time. It is called for every
    unit of the network, with the statistics that it declares with `autoprune.needs` and, if it declares none, also
    without any.

    Args:
        criterion: a function (weights, statistics) -> scores.
        model: a network with units; by default a small one.
        batches: batches of calibration examples for `model`.

    Raises:
        AssertionError: the criterion breaks its contract; the message says how, and what to do.
    """
    from autoprune.prune.criteria import UnitStatistics, needs_of, order_positions
    from autoprune.prune.criteria.ordering import criterion_inputs

    with keeping("the criterion", "See docs/plugins.md#criterion for what a criterion must return."):
        assert callable(criterion), f"expected a function of (weights, statistics), got a {type(criterion).__name__}"
        model, structure, moments, inputs = _collected(model, batches)
        wanted = needs_of(criterion)
        for unit, weights, statistics in criterion_inputs(model, structure, structure.units, moments, inputs, wanted):
            given = [statistics] if wanted else [statistics, UnitStatistics(())]
            for known in given:
                orders = [
                    order_positions(criterion, *copy.deepcopy((weights, known)), unit.name).tolist() for _ in range(2)
                ]
                assert orders[0] == orders[1], (
                    f"expected the same scores each time, but the order of unit {unit.name!r} was {orders[0]} and then "
                    f"{orders[1]}. Draw nothing at random, and keep no state between calls"
                )


def check_masks(
    scores: Callable[..., Any], model: nn.Module | None = None, batches: Sequence[Batch] | None = None
) -> None:
    """Checks that a mask rule keeps its contract.

    A mask rule must return finite scores of the weight's shape, the same each time. It is called for every weight of
    the network that has moments, with and without them.

    Args:
        scores: a function (weight, moments) -> scores, which gets a (g, o, k) weight and the Moments of its inputs or
            None.
        model: a network with weights to mask; by default a small one.
        batches: batches of calibration examples for `model`.

    Raises:
        AssertionError: the mask rule breaks its contract; the message says how, and what to do.
    """
    import torch

    from autoprune.prune.bank.masks import checked
    from autoprune.prune.moments.refit import seen_weight

    with keeping("the mask rule", "See docs/sparsity.md for what a mask rule must return."):
        assert callable(scores), f"expected a function of (weight, moments), got a {type(scores).__name__}"
        model, _, moments, _ = _collected(model, batches)
        for name, own in moments.items():
            weight = seen_weight(model.get_parameter(name).detach(), own)
            for known in (own, None):
                found = [checked(scores(weight.clone(), copy.deepcopy(known)), weight, name) for _ in range(2)]
                assert torch.equal(found[0], found[1]), (
                    f"expected the same scores each time, but those of {name!r} differ. Draw nothing at random"
                )


def _collected(
    model: nn.Module | None, batches: Sequence[Batch] | None
) -> tuple[nn.Module, Structure, dict[str, Moments], list[tuple[torch.Tensor, ...]]]:
    """A network with its structure, the moments of its consumers' inputs, and the inputs of the network itself."""
    from autoprune.prune.find import find_structure
    from autoprune.prune.moments.consumers import consumers_of
    from autoprune.prune.moments.moments import collect_moments

    model = small_network() if model is None else model
    inputs = [batch.inputs for batch in (small_batches() if batches is None else batches)]
    structure = find_structure(model, tuple(x[:1] for x in inputs[0]))
    moments, _ = collect_moments(model, structure, consumers_of(structure.units), inputs)
    return model, structure, moments, inputs
