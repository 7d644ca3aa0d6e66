"""Finds the structure of a network: traces it, and verifies every unit on small networks."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from autoprune.errors import UnsupportedModel
from autoprune.prune.modules.wrappers import unwrapped
from autoprune.prune.passes.examples import Examples, examples_for
from autoprune.prune.passes.shortened import shortened
from autoprune.prune.structure.structure import Structure
from autoprune.prune.structure.trace import trace
from autoprune.prune.surgery.alone import check_alone
from autoprune.prune.surgery.verify import demote_wrong_units


def find_structure(model: nn.Module, example_inputs: Examples) -> Structure:
    """The units, frozen parts and cost polynomials of a network.

    Args:
        model: any module; it is run without gradients, in eval mode and then in train mode (without randomness, see
            train_mode.py), and left exactly as it was. DataParallel, DistributedDataParallel and torch.compile are
            unwrapped, with a note. On the meta device nothing is computed and no memory is used; units are then
            verified by shapes alone. Decisions that integer and boolean inputs such as masks alone decide are made by
            their values; without values, as on the meta device, they count as ones.
        example_inputs: one call of the model: a tensor, a tuple of positional or a dict of keyword arguments, or a
            `call` of another method. Several calls, which are related in one structure, are a list of such examples or
            a dict of `call`s by name: give them where one call does not run the whole model. MACs are those of the
            first call in eval mode, so pass a single example there to count per example. Calls whose only tensors are
            tokens and masks of more than 256 tokens are traced in full; where fewer tokens run the same operators,
            units are verified on the first 256, with a note.

    Returns:
        The structure. Its `unmet` are parameters that no call has read; its `notes` name the parts that were not
        analyzed.

    Raises:
        UnsupportedModel: the model has no parameters, or some that are not finite; it cannot be copied, does not run
            on the first example in eval mode or on another one in any mode, returns nothing that can be compared,
            depends on state outside the module tree, or computes something else when it runs again; it is scripted,
            exported, sharded or quantised.
        PluginError: an adapter computes something different from the class that it replaces.

    >>> find_structure(model, torch.randn(1, 3, 224, 224))
    >>> find_structure(model, [call(x), call(x, head="boxes")])
    >>> find_structure(model, {"image": call(x, method="encode_image"), "text": call(ids, method="encode_text")})
    """
    model, notes = unwrapped(model)
    _check_finite(model)
    examples = examples_for(model, example_inputs)
    short, told = shortened(model, examples)
    checked = [note for example in short for note in check_alone(model, example)]
    structure = demote_wrong_units(model, trace(model, examples), short)
    return replace(structure, notes=(*notes, *structure.notes, *told, *checked))


def _check_finite(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point() or torch.isfinite(parameter).all():
            continue
        raise UnsupportedModel(
            f"expected finite weights, got NaN or infinity in {int((~torch.isfinite(parameter)).sum())} of the "
            f"{parameter.numel()} of {name}. Load a checkpoint that was trained without them."
        )
