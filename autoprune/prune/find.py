"""The structure of a network that can be trusted: traced, and every unit proved on small networks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.alone import check_alone
from autoprune.prune.structure import Structure
from autoprune.prune.trace import Examples, trace
from autoprune.prune.verify import demote_wrong_units


def find_structure(model: nn.Module, example_inputs: Examples) -> Structure:
    """The units, frozen parts and cost polynomials of a network.

    Args:
        model: any module; it is run in eval mode without gradients and left exactly as it was. On the meta device
            nothing is computed and nothing takes memory: units are then proved by shapes alone.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments. MACs are those of one forward
            pass of them, so pass a single example to count per example.

    Raises:
        UnsupportedModel: the model has no parameters, or some that are not finite; it cannot be copied, does not run
            on the example, depends on state outside the module tree, or computes something else when it runs again.
    """
    _check_finite(model)
    notes = check_alone(model, example_inputs)
    structure = demote_wrong_units(model, trace(model, example_inputs), example_inputs)
    return replace(structure, notes=(*structure.notes, *notes))


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point() or torch.isfinite(parameter).all():
            continue
        raise UnsupportedModel(
            f"expected finite weights, got NaN or infinity in {int((~torch.isfinite(parameter)).sum())} of the "
            f"{parameter.numel()} of {name}. Load a checkpoint that was trained without them."
        )
