"""The forms in which a pruned network can be written as a checkpoint, the simplest first."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from autoprune.pretrained.resizing import keep_buffers, keep_computed_buffers, sizes_of
from autoprune.prune.modules.copies import copy_model
from autoprune.prune.modules.skip import Skip
from autoprune.prune.surgery.surgery import Recipe

LAYERS = "num_hidden_layers"


@dataclass(frozen=True)
class Draft:
    """A network as it may be written.

    Attributes:
        network: a copy of the network.
        config: its configuration.
        sizes: integers of modules, by module.
        skipped: modules that compute nothing, with the length of what they return.
        buffers: modules whose buffers have another shape than in the dense network.
        plain: whether its class has these sizes with this configuration, so that it needs no code of its own.
    """

    network: Any
    config: Any
    sizes: Mapping[str, Mapping[str, int]]
    skipped: Mapping[str, int]
    buffers: Mapping[str, bool]
    plain: bool = False


def drafts(network: nn.Module, dense: nn.Module, recipe: Recipe) -> Iterator[Draft]:
    """The forms of a network: without its emptied layers and with them, each of the plain class and with code."""
    whole = Draft(
        copy_model(network), copy.deepcopy(dense.config), recipe.sizes, recipe.skipped, _resized_buffers(network, dense)
    )
    for draft in (_without_emptied(whole), whole):
        if draft is not None:
            if (config := _plain_config(draft)) is not None:
                yield replace(draft, config=config, plain=True)
            for module in map(draft.network.get_submodule, draft.buffers):
                keep_buffers(module)
            keep_computed_buffers(draft.network)
            yield draft


def _resized_buffers(network: nn.Module, dense: nn.Module) -> dict[str, bool]:
    """The modules of buffers that have another shape than in the dense network."""
    own = dict(dense.named_buffers())
    return {
        name.rpartition(".")[0]: True for name, buffer in network.named_buffers() if own[name].shape != buffer.shape
    }


def _without_emptied(draft: Draft) -> Draft | None:
    """The network without the layers of which nothing is left; None if there are none, or no other layers."""
    count = getattr(draft.config, LAYERS, None)
    found = [(name, m) for name, m in draft.network.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        return None
    ((name, layers),) = found
    kept = [index for index, layer in enumerate(layers) if not _is_emptied(layer)]
    if not kept or len(kept) == count:
        return None
    network, config = copy_model(draft.network), copy.deepcopy(draft.config)
    parent, _, own = name.rpartition(".")
    copied = list(network.get_submodule(name).children())
    setattr(network.get_submodule(parent), own, nn.ModuleList(copied[index] for index in kept))
    for key, value in vars(config).items():
        if isinstance(value, list) and len(value) == count:
            setattr(config, key, [value[index] for index in kept])
    setattr(config, LAYERS, len(kept))
    sizes, skipped, buffers = (_renumbered(each, name, kept) for each in (draft.sizes, draft.skipped, draft.buffers))
    return Draft(network, config, sizes, skipped, buffers)


def _is_emptied(layer: nn.Module) -> bool:
    """Whether a layer computes nothing: branches of it are removed, and no parameter is left."""
    return any(isinstance(module, Skip) for module in layer.modules()) and not list(layer.parameters())


def _renumbered(values: Mapping[str, Any], layers: str, kept: Sequence[int]) -> dict[str, Any]:
    """Values by module, with the new numbers of layers; those of other layers are left out."""
    new = {str(old): str(index) for index, old in enumerate(kept)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        if (match := re.fullmatch(rf"({re.escape(layers)}\.)(\d+)(.*)", name)) is None:
            found[name] = value
        elif match[2] in new:
            found[f"{match[1]}{new[match[2]]}{match[3]}"] = value
    return found


def _plain_config(draft: Draft) -> Any:
    """A configuration with which the network's class has all of its tensors; None if there is none."""
    config = copy.deepcopy(draft.config)
    try:
        for name, value in _uniform_sizes(draft).items():
            if hasattr(config, name) or name == "head_dim":  # which classes read also where configurations lack it
                setattr(config, name, value)
        with torch.device("meta"):
            plain = type(draft.network)(config)
    except Exception:  # classes raise anything for sizes that they do not have, or that do not fit each other
        return None
    return config if sizes_of(plain, {}, {}) == sizes_of(draft.network, {}, {}) else None


def _uniform_sizes(draft: Draft) -> dict[str, int]:
    """The sizes that all layers share, by their names in configurations."""
    found: dict[str, set[int]] = {}
    for attributes in draft.sizes.values():
        for path, value in attributes.items():
            found.setdefault(path.rpartition(".")[2], set()).add(value)
    for module in draft.network.modules():
        for name, projection in (("num_attention_heads", "q_proj"), ("num_key_value_heads", "k_proj")):
            if hasattr(module, "head_dim") and isinstance(getattr(module, projection, None), nn.Linear):
                found.setdefault(name, set()).add(getattr(module, projection).out_features // module.head_dim)
    return {name: min(values) for name, values in found.items() if len(values) == 1}
