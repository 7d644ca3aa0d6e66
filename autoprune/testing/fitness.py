"""Contract test of fitness functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from autoprune.testing.sentences import keeping
from autoprune.testing.unchanged import changed_in, same_process, state_of

if TYPE_CHECKING:
    from torch import nn

    from autoprune.measure.batch import Batch


_ADVICE = "It must take (model, batches) and return a number, or a dict of numbers by name."


def check_fitness(
    fitness: Callable[[nn.Module, Sequence[Batch]], float | Mapping[str, float]],
    model: nn.Module,
    batches: Sequence[Batch],
) -> None:
    """Checks that a fitness function keeps its contract.

    A fitness must return a finite number, or a dict of finite numbers by name, the same for the same model and batches.
    A number is what a search takes: what `float` takes but text, so NumPy's numbers and tensors of one element too. It
    must not change the model, the modes of its modules, or the batches.

    Args:
        fitness: a function (model, batches) -> number or dict.
        model: a network to measure, in eval mode.
        batches: labelled batches for `model`.

    Raises:
        AssertionError: the fitness breaks its contract; the message says how.
    """
    with keeping("the fitness", _ADVICE), same_process("the fitness"):
        _check_fitness(fitness, model, batches)


def _check_fitness(fitness: Callable[..., Any], model: nn.Module, batches: Sequence[Batch]) -> None:
    from autoprune.measure.intact import Intact
    from autoprune.run.records.columns import check_measured
    from autoprune.run.session.names import COSTS

    before, intact = state_of(model), Intact()
    with intact.lending(batches) as lent:
        first, second = (_measured(fitness, model, lent) for _ in range(2))
    check_measured(first, COSTS)
    assert first == second, f"the same model and batches gave {first} and then {second}"
    assert not (changed := changed_in(model, before)), f"the fitness changed {changed} of the model"
    assert not intact.remark, intact.remark


def _measured(fitness: Callable[..., Any], model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    """The values by name, measured as in a search: without gradients, and with the same random numbers each time."""
    import torch

    from autoprune.measure.scorer import checked_values
    from autoprune.prune.modules.borrowed import seeded

    with torch.no_grad(), seeded(0):
        return checked_values(fitness(model, batches), "fitness")
