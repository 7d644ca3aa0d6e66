"""Contract test of fitness functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.testing.networks import changed_in, state_of
from autoprune.testing.sentences import check_values, keeping

if TYPE_CHECKING:
    from torch import nn

    from autoprune.measure.batch import Batch


def check_fitness(
    fitness: Callable[[nn.Module, Sequence[Batch]], float | Mapping[str, float]],
    model: nn.Module,
    batches: Sequence[Batch],
) -> None:
    """Checks that a fitness function keeps its contract.

    A fitness must return a finite number, or a dict of finite numbers by name, the same for the same model and batches.
    It must not change the model's parameters, buffers and training mode.

    Args:
        fitness: a function (model, batches) -> number or dict.
        model: a network to measure, in eval mode.
        batches: labelled batches for `model`.

    Raises:
        AssertionError: the fitness breaks its contract; the message says how.
    """
    with keeping("the fitness", "It must take (model, batches) and return a number, or a dict of numbers by name."):
        _check_fitness(fitness, model, batches)


def _check_fitness(fitness: Callable[..., Any], model: nn.Module, batches: Sequence[Batch]) -> None:
    before = state_of(model)
    mode = [module.training for module in model.modules()]
    first, second = (_measured(fitness, model, batches) for _ in range(2))
    check_values(first)
    assert first == second, f"the same model and batches gave {first} and then {second}"
    changed = changed_in(model, before)
    assert not changed, f"the fitness changed the model's {changed}"
    assert mode == [module.training for module in model.modules()], "the fitness changed the model's training mode"


def _measured(fitness: Callable[..., Any], model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """The values by name, measured as in a search, with the same random numbers for every network."""
    from autoprune.prune.modules.borrowed import seeded

    with seeded(0):
        return _named(fitness(model, batches))


def _named(value: float | Mapping[str, float]) -> dict[str, float]:
    return dict(value) if isinstance(value, Mapping) else {"fitness": value}
