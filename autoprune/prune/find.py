"""The structure of a network that can be trusted: traced, and every unit proved on small networks."""

from __future__ import annotations

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.structure import Structure
from autoprune.prune.trace import Examples, trace
from autoprune.prune.verify import TOLERANCE, demote_wrong_units, largest_difference, outputs


def find_structure(model: nn.Module, example_inputs: Examples) -> Structure:
    """The units, frozen parts and cost polynomials of a network.

    Args:
        model: any module; it is run in eval mode without gradients and left exactly as it was. On the meta device
            nothing is computed and nothing takes memory: units are then proved by shapes alone.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments. MACs are those of one forward
            pass of them, so pass a single example to count per example.

    Raises:
        UnsupportedModel: the model has no parameters, or some that are not finite; it cannot be copied, does not run
            on the example, or computes something else when it runs again.
    """
    _check_finite(model)
    structure = trace(model, example_inputs)
    _check_repeatable(model, example_inputs)
    return demote_wrong_units(model, structure, example_inputs)


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point() or torch.isfinite(parameter).all():
            continue
        raise UnsupportedModel(
            f"expected finite weights, got NaN or infinity in {int((~torch.isfinite(parameter)).sum())} of the "
            f"{parameter.numel()} of {name}. Load a checkpoint that was trained without them."
        )


def _check_repeatable(model: nn.Module, example_inputs: Examples) -> None:
    with torch.random.fork_rng():
        first, second = (outputs(model, example_inputs) for _ in range(2))
    difference = max(map(largest_difference, first, second), default=0.0) if len(first) == len(second) else float("inf")
    if difference > TOLERANCE:
        raise UnsupportedModel(
            f"expected {type(model).__name__} to compute the same when it runs twice on the same inputs in eval mode, "
            f"the outputs differ by {difference:.2g} relative: its forward is random or keeps a state. Nothing can be "
            "verified about such a network; make it repeatable, for example by a flag that turns the randomness off."
        )
